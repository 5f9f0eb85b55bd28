package pmem

import (
	"fmt"
	"hash/crc32"
	"sync/atomic"
)

// MaxFragments is the largest number of fragments of one record.
const MaxFragments = 1 << 16

var noEntry [entryLen]byte

// Fragment is a piece of a record's payload: Len bytes from byte Off of data
// frame Frame.
type Fragment struct {
	Frame    uint32
	Off, Len uint16
}

// Log is the pool's append-only log. A record is a sequence of fragments, in
// frames where the payload was received or copied to; each holds a reference
// to its frame until Truncate drops the record.
//
// One goroutine at a time may call Append, AppendCopy, Commit, Truncate and
// the readers. Head, Next, Len and Used may be called from any goroutine.
type Log struct {
	p    *Pool
	seed uint32

	head logHead // as it is durable
	tail uint64  // position after the last committed entry
	last uint64  // sequence number after the last committed record

	staged    []byte // encoded entries that Commit will store from tail on
	stagedSeq uint64 // sequence number that the next record gets

	buf      [entryLen]byte // of decode
	closed   bool
	recovery Recovery
	bad      badCopy // of the head, at Open

	// What other goroutines may look at.
	pubHead, pubLast, pubNext, pubUsed atomic.Uint64
}

func (l *Log) slot(pos uint64) []byte {
	off := l.p.g.logOff + pos%l.p.g.logLen*entryLen
	return l.p.mem[off : off+entryLen]
}

// decode reads the entry at pos, if that is what its slot holds.
func (l *Log) decode(pos uint64) (entry, bool) {
	return decodeEntry(&l.buf, l.slot(pos), l.seed, pos)
}

func (l *Log) publish() {
	l.pubHead.Store(l.head.seq)
	l.pubLast.Store(l.last)
	l.pubNext.Store(l.stagedSeq)
	l.pubUsed.Store(l.tail - l.head.pos + uint64(len(l.staged)/entryLen))
}

// writable says why the log cannot be written, if so.
func (l *Log) writable() error {
	switch {
	case l.closed:
		return ErrClosed
	case l.p.readOnly:
		return ErrReadOnly
	}
	return nil
}

// room checks that n more entries fit.
func (l *Log) room(n int) error {
	if n > MaxFragments {
		return fmt.Errorf("append to log: %w: %d fragments; a record has at most %d", ErrFragment, n, MaxFragments)
	}
	if used := l.tail - l.head.pos + uint64(len(l.staged)/entryLen); used+uint64(n) > l.p.g.logLen {
		return fmt.Errorf("append to log: %w: %d of %d log entries hold records from %d on and %d more are needed; truncate the log or create the pool with more log entries",
			ErrFull, used, l.p.g.logLen, l.head.seq, n)
	}
	return nil
}

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
	if err := l.writable(); err != nil {
		return 0, fmt.Errorf("append to log: %w", err)
	}
	if err := l.room(max(len(frags), 1)); err != nil {
		return 0, err
	}
	if err := l.takeRefs(frags); err != nil {
		return 0, err
	}
	fs := uint64(l.p.g.frameSize)
	for i, f := range frags {
		off := uint64(f.Frame)*fs + uint64(f.Off)
		sum := crc32.Checksum(l.p.mem[off:off+uint64(f.Len)], castagnoli)
		if flush && f.Len > 0 {
			l.p.dom.Flush(off, uint64(f.Len))
		}
		l.stage(f, sum, i, len(frags))
	}
	return l.endRecord(len(frags)), nil
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
			return fmt.Errorf("append to log: %w %d: bytes %d to %d of frame %d, which must be a data frame in use of %d bytes",
				ErrFragment, i, f.Off, uint32(f.Off)+uint32(f.Len), f.Frame, l.p.g.frameSize)
		}
	}
	return nil
}

// AppendCopy stages one record with a copy of payload, in frames that it
// allocates for it, stored past the caches. Otherwise it is as Append.
func (l *Log) AppendCopy(payload []byte) (seq uint64, err error) {
	if err := l.writable(); err != nil {
		return 0, fmt.Errorf("append to log: %w", err)
	}
	fs := int(l.p.g.frameSize)
	n := (len(payload) + fs - 1) / fs
	if err := l.room(max(n, 1)); err != nil {
		return 0, err
	}
	if free := l.p.Free(); free < n {
		return 0, l.noFrames(n, free)
	}
	var frames [32]uint32
	start := len(l.staged)
	for i := 0; i < n; {
		got := l.p.Alloc(frames[:min(n-i, len(frames))])
		if got == 0 { // another goroutine was faster
			l.unstage(start)
			return 0, l.noFrames(n, i)
		}
		for _, f := range frames[:got] {
			piece := payload[i*fs : min(len(payload), (i+1)*fs)]
			l.p.dom.CopyNT(uint64(f)*uint64(fs), piece)
			// The reference of Alloc becomes the log's.
			l.stage(Fragment{Frame: f, Len: uint16(len(piece))}, crc32.Checksum(piece, castagnoli), i, n)
			i++
		}
	}
	return l.endRecord(n), nil
}

func (l *Log) noFrames(need, have int) error {
	return fmt.Errorf("append to log: %w: %d frames are needed and %d of %d are free; truncate the log or create a larger pool",
		ErrFull, need, have, l.p.g.frames-l.p.g.first)
}

// stage encodes entry i of n of the next record behind those already staged.
func (l *Log) stage(f Fragment, sum uint32, i, n int) {
	e := entry{
		pos:     l.tail + uint64(len(l.staged)/entryLen),
		seq:     l.stagedSeq,
		durable: l.tail,
		frame:   f.Frame,
		off:     f.Off,
		len:     f.Len,
		epoch:   l.head.epoch,
		index:   uint16(i),
		sum:     sum,
	}
	if i == 0 {
		e.flags |= flagFirst
	}
	if i >= n-1 {
		e.flags |= flagLast
	}
	if n == 0 {
		e.flags |= flagEmpty
	}
	k := len(l.staged)
	l.staged = append(l.staged, noEntry[:]...) // room is kept from one batch to the next
	e.encode(l.staged[k:], l.seed)
}

// endRecord completes a record of n staged fragments.
func (l *Log) endRecord(n int) uint64 {
	if n == 0 {
		l.stage(Fragment{}, 0, 0, 0)
	}
	seq := l.stagedSeq
	l.stagedSeq++
	l.publish()
	return seq
}

// unstage gives back the frames of the entries staged from byte start on.
func (l *Log) unstage(start int) {
	for b := l.staged[start:]; len(b) > 0; b = b[entryLen:] {
		l.p.Unref(le.Uint32(b[24:]))
	}
	l.staged = l.staged[:start]
}

// Commit makes every staged record durable: when it returns, they will be
// found after a crash. Payloads are fenced before the first entry is stored.
func (l *Log) Commit() error {
	if err := l.writable(); err != nil {
		return fmt.Errorf("commit log: %w", err)
	}
	if len(l.staged) == 0 {
		return nil
	}
	if _, err := l.p.dom.Order(); err != nil {
		return fmt.Errorf("commit log: %w", err)
	}
	g := &l.p.g
	for b := l.staged; len(b) > 0; { // twice at most: the ring wraps
		off := l.tail % g.logLen * entryLen
		n := min(uint64(len(b)), g.logLen*entryLen-off)
		copy(l.p.mem[g.logOff+off:], b[:n])
		l.p.dom.Flush(g.logOff+off, n)
		b = b[n:]
		l.tail += n / entryLen
	}
	if err := l.p.dom.Fence(); err != nil {
		return fmt.Errorf("commit log: %w", err)
	}
	l.staged = l.staged[:0]
	l.last = l.stagedSeq
	l.publish()
	return nil
}

// Truncate drops the committed records with sequence numbers up to and
// including upTo and gives up their references to frames. The new head is
// durable before the first frame is freed. Staged records are not touched.
func (l *Log) Truncate(upTo uint64) error {
	if err := l.writable(); err != nil {
		return fmt.Errorf("truncate log: %w", err)
	}
	if upTo < l.head.seq {
		return nil
	}
	upTo = min(upTo, l.last-1)
	if upTo < l.head.seq {
		return nil
	}
	end, err := l.find(upTo + 1)
	if err != nil {
		return fmt.Errorf("truncate log: %w", err)
	}
	lastOut, err := l.entryAt(end - 1)
	if err != nil {
		return fmt.Errorf("truncate log: %w", err)
	}
	from := l.head.pos
	l.head.gen++
	l.head.pos = end
	l.head.seq = upTo + 1
	l.head.minEpoch = lastOut.epoch
	if err := writeHead(l.p.mem, l.p.dom, &l.p.g, l.seed, &l.head); err != nil {
		return fmt.Errorf("truncate log: %w", err)
	}
	l.release(from, end)
	l.publish()
	return nil
}

// release gives up the references of the entries in [from, end). An entry
// that has rotten since it was recovered keeps its frame in use until the
// pool is opened again: that loses room, never data.
func (l *Log) release(from, end uint64) {
	t := &l.p.frames
	t.mu.Lock()
	defer t.mu.Unlock()
	for pos := from; pos < end; pos++ {
		if e, ok := l.decode(pos); ok && e.inside(&l.p.g) && e.flags&flagEmpty == 0 {
			t.unref(e.frame)
		}
	}
}

// Head returns the sequence number of the oldest record, or Next of an empty log.
func (l *Log) Head() uint64 { return l.pubHead.Load() }

// Next returns the sequence number that the next record will get.
func (l *Log) Next() uint64 { return l.pubNext.Load() }

// Len returns the number of committed records in the log.
func (l *Log) Len() int { return int(l.pubLast.Load() - l.pubHead.Load()) }

// Used returns how many of the pool's LogEntries are taken, staged ones included.
func (l *Log) Used() uint64 { return l.pubUsed.Load() }
