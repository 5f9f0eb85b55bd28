package pmem

import (
	"fmt"
	"hash/crc32"
)

// Append stages one record whose payload lies in frags, in that order, and
// returns its sequence number. It takes a reference on every frame; the caller
// keeps its own. With flush it starts the write-back of the payload; without,
// the caller has done that, or does not need it. The payload must not change
// any more. No fragments at all make an empty record.
//
// The record is neither durable nor visible before Commit. On error nothing
// was staged: ErrFull when the log has no room, ErrFragment when a fragment is
// not inside a data frame in use.
func (l *Log) Append(frags []Fragment, flush bool) (seq uint64, err error) {
	return l.AppendHeader(nil, frags, flush)
}

// AppendHeader is Append with a header of at most MaxHeader bytes, which is
// copied and comes back as Record.Header. Up to 20 bytes need no additional
// log entry if there is a fragment, otherwise each 32 bytes need one.
func (l *Log) AppendHeader(header []byte, frags []Fragment, flush bool) (seq uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.change(func() (err error) {
		seq, err = l.append(header, frags, flush)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("append to log: %w", err)
	}
	return seq, nil
}

func (l *Log) append(header []byte, frags []Fragment, flush bool) (seq uint64, err error) {
	if err := l.room(header, len(frags)); err != nil {
		return 0, err
	}
	if err := l.takeRefs(frags); err != nil {
		return 0, err
	}
	fs := uint64(l.p.g.frameSize)
	s := l.begun(header, len(frags))
	for _, f := range frags {
		off := uint64(f.Frame)*fs + uint64(f.Off)
		sum := crc32.Checksum(l.p.mem[off:off+uint64(f.Len)], castagnoli)
		if flush && f.Len > 0 {
			l.p.dom.Flush(off, uint64(f.Len))
		}
		s.fragment(f, sum)
	}
	return s.end(), nil
}

// AppendCopy stages one record with a copy of payload, in frames that it
// allocates for it, stored past the caches. Otherwise it is as Append.
func (l *Log) AppendCopy(payload []byte) (seq uint64, err error) {
	return l.AppendCopyHeader(nil, payload)
}

// AppendCopyHeader is AppendCopy with a header, see AppendHeader.
func (l *Log) AppendCopyHeader(header, payload []byte) (seq uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	err = l.change(func() (err error) {
		seq, err = l.appendCopy(header, payload)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("append to log: %w", err)
	}
	return seq, nil
}

func (l *Log) appendCopy(header, payload []byte) (seq uint64, err error) {
	fs := int(l.p.g.frameSize)
	n := (len(payload) + fs - 1) / fs
	if err := l.room(header, n); err != nil {
		return 0, err
	}
	if free := l.p.Free(); free < n {
		return 0, l.noFrames(n, free)
	}
	var frames [32]uint32
	start := len(l.staged)
	s := l.begun(header, n)
	for i := 0; i < n; {
		got := l.p.Alloc(frames[:min(n-i, len(frames))])
		if got == 0 { // another goroutine was faster
			l.unstage(start)
			return 0, l.noFrames(n, i)
		}
		for _, f := range frames[:got] {
			piece := payload[i*fs : min(len(payload), (i+1)*fs)]
			l.p.CopyNT(uint64(f)*uint64(fs), piece)
			// The reference of Alloc becomes the log's.
			s.fragment(Fragment{Frame: f, Len: uint16(len(piece))}, crc32.Checksum(piece, castagnoli))
			i++
		}
	}
	return s.end(), nil
}

// headerEntries is how many entries a record needs besides its fragments.
func headerEntries(header []byte, frags int) int {
	switch {
	case len(header) == 0 && frags == 0:
		return 1 // flagEmpty
	case frags > 0 && len(header) <= headerBeside:
		return 0
	}
	return (len(header) + headerAlone - 1) / headerAlone
}

// room checks that a record can be appended.
func (l *Log) room(header []byte, frags int) error {
	if err := l.writable(); err != nil {
		return err
	}
	if len(header) > MaxHeader {
		return fmt.Errorf("%w: a header of %d bytes; the limit is %d", ErrSize, len(header), MaxHeader)
	}
	if frags > MaxFragments {
		return fmt.Errorf("%w: %d fragments; a record has at most %d", ErrFragment, frags, MaxFragments)
	}
	n := uint64(frags + headerEntries(header, frags))
	if used := l.next() - l.head.pos; used+n > l.p.g.logLen {
		return fmt.Errorf("%w: %d of %d log entries hold records from %d on and %d more are needed; truncate the log or create the pool with more log entries",
			ErrFull, used, l.p.g.logLen, l.head.seq, n)
	}
	return nil
}

// takeRefs takes a reference on every frame, or on none.
func (l *Log) takeRefs(frags []Fragment) error {
	t := &l.p.frames
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, f := range frags {
		if uint32(f.Off)+uint32(f.Len) > l.p.g.frameSize || !t.held(f.Frame) || !t.ref(f.Frame) {
			for _, g := range frags[:i] {
				t.unref(g.Frame)
			}
			return fmt.Errorf("%w %d: bytes %d to %d of frame %d, which must be a data frame in use of %d bytes",
				ErrFragment, i, f.Off, uint32(f.Off)+uint32(f.Len), f.Frame, l.p.g.frameSize)
		}
	}
	return nil
}

func (l *Log) noFrames(need, have int) error {
	return fmt.Errorf("%w: %d frames are needed and %d of %d are free; truncate the log or create a larger pool",
		ErrFull, need, have, l.p.g.frames-l.p.g.first)
}

// staging encodes the entries of one record behind those already staged.
type staging struct {
	l     *Log
	n     int    // entries of the record
	i     int    // of them staged
	aside []byte // header for the first fragment's entry
}

// begun starts a record and stages what comes before its fragments.
func (l *Log) begun(header []byte, frags int) staging {
	extra := headerEntries(header, frags)
	s := staging{l: l, n: extra + frags}
	if extra == 0 {
		s.aside = header
		return s
	}
	if len(header) == 0 {
		s.stage(&entry{flags: flagEmpty})
	}
	for len(header) > 0 {
		var e entry
		k := copy(e.header[:], header)
		e.flags = flagHeader | uint16(k)<<headerShift
		s.stage(&e)
		header = header[k:]
	}
	return s
}

func (s *staging) fragment(f Fragment, sum uint32) {
	e := entry{frame: f.Frame, off: f.Off, len: f.Len, sum: sum}
	e.flags = uint16(copy(e.header[:], s.aside)) << headerShift
	s.aside = nil
	s.stage(&e)
}

func (s *staging) stage(e *entry) {
	l := s.l
	e.pos, e.seq, e.epoch, e.index = l.next(), l.stagedSeq, l.head.epoch, uint16(s.i)
	if s.i == 0 {
		e.flags |= flagFirst
	}
	s.i++
	if s.i == s.n {
		e.flags |= flagLast
	}
	k := len(l.staged)
	l.staged = append(l.staged, noEntry[:]...) // room is kept from one batch to the next
	e.encode(l.staged[k:])
}

func (s *staging) end() uint64 {
	seq := s.l.stagedSeq
	s.l.stagedSeq++
	s.l.publish()
	return seq
}

// unstage gives back the frames of the entries staged from byte start on.
func (l *Log) unstage(start int) {
	for b := l.staged[start:]; len(b) > 0; b = b[entryLen:] {
		if le.Uint16(b[24:])&(flagEmpty|flagHeader) == 0 {
			l.p.Unref(le.Uint32(b[28:]))
		}
	}
	l.staged = l.staged[:start]
}
