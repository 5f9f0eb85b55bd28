package raftlog

import (
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"

	"github.com/pastenet/paste/pmem"
)

const (
	headerLen     = 20
	maxExtensions = 1<<24 - 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeHeader(l *raft.Log) (h [headerLen]byte, err error) {
	if len(l.Extensions) > maxExtensions {
		return h, fmt.Errorf("%w: the extensions of entry %d have %d bytes; the limit is %d", pmem.ErrSize, l.Index, len(l.Extensions), maxExtensions)
	}
	le.PutUint64(h[0:], l.Term)
	if !l.AppendedAt.IsZero() {
		le.PutUint64(h[8:], uint64(l.AppendedAt.UnixNano()))
	}
	le.PutUint32(h[16:], uint32(l.Type)|uint32(len(l.Extensions))<<8)
	return h, nil
}

// GetLog reads the entry with that index into l, or returns raft.ErrLogNotFound.
// The bytes are copied. An entry that is not what was stored is pmem.ErrChecksum.
func (s *Store) GetLog(index uint64, l *raft.Log) error {
	s.trim.RLock()
	defer s.trim.RUnlock()
	if first, last := s.indices(); first == 0 || index < first || index > last {
		return raft.ErrLogNotFound
	}
	r, err := s.log.Record(s.base.record(index))
	if errors.Is(err, pmem.ErrNoRecord) {
		return raft.ErrLogNotFound
	}
	if err == nil {
		err = s.p.Guard(func() error { return decode(&r, l) })
	}
	if err != nil {
		return fmt.Errorf("read raft entry %d: %w", index, err)
	}
	l.Index = index
	return nil
}

// decode fills in everything but the index.
func decode(r *pmem.Record, l *raft.Log) error {
	if len(r.Header) != headerLen {
		return fmt.Errorf("%w: record %d has a header of %d bytes, and is no raft entry", pmem.ErrDamaged, r.Seq, len(r.Header))
	}
	word := le.Uint32(r.Header[16:])
	ext := int64(word >> 8)
	if ext > r.Length {
		return fmt.Errorf("%w: record %d has %d bytes, and %d of extensions", pmem.ErrDamaged, r.Seq, r.Length, ext)
	}
	b := make([]byte, r.Length)
	at, sum := 0, uint32(0)
	for i := range r.Fragments {
		n := copy(b[at:], r.Payload(i))
		want, part, parts := r.Sum(i)
		if part == 0 {
			sum = 0
		}
		// The copy is what the caller gets, so that is what is looked at.
		sum = crc32.Update(sum, castagnoli, b[at:at+n])
		if part == parts-1 && sum != want {
			return fmt.Errorf("%w: record %d, fragment %d", pmem.ErrChecksum, r.Seq, i)
		}
		at += n
	}
	*l = raft.Log{Term: le.Uint64(r.Header), Type: raft.LogType(word)}
	if ns := int64(le.Uint64(r.Header[8:])); ns != 0 {
		l.AppendedAt = time.Unix(0, ns)
	}
	if ext > 0 {
		l.Extensions = b[:ext:ext]
	}
	if ext < r.Length {
		l.Data = b[ext:]
	}
	return nil
}
