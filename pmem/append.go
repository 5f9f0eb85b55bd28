package pmem

import (
	"fmt"
	"runtime/debug"
	"slices"
)

// Append stages one record whose payload lies in frags, in that order, and
// returns its sequence number. It takes a reference on every frame; the caller
// keeps its own. With flush the payload is written back, now or by Commit;
// without, the caller has done that, or does not need it. The payload must not
// change any more, as the log's checksum may be taken of it as late as by
// Commit. No fragments at all make an empty record.
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
	done := false
	defer l.changed(debug.SetPanicOnFault(true), &done, &err)
	seq, err = l.append(header, frags, flush)
	done = true
	if err != nil {
		return 0, fmt.Errorf("append to log: %w", err)
	}
	return seq, nil
}

func (l *Log) append(header []byte, frags []Fragment, flush bool) (seq uint64, err error) {
	runs := l.p.countRuns(frags)
	if err := l.room(header, runs); err != nil {
		return 0, err
	}
	n, err := l.p.refAll(frags)
	if err != nil {
		return 0, err
	}
	s := l.begun(header, runs)
	for len(frags) > 0 {
		r, k := l.p.firstRun(frags)
		frags = frags[k:]
		switch {
		case n > placeLater:
			s.run(r, l.p.sumPayload(l.p.Offset(r.frame, int(r.off)), uint64(r.len), flush), payloadDone)
		case flush:
			s.run(r, 0, payloadFlush)
		default:
			s.run(r, 0, payloadSum)
		}
	}
	if n > placeLater {
		l.p.handOver()
	}
	return s.end(), nil
}

// AppendCopy stages one record with a copy of payload, in frames that it
// allocates for it, stored past the caches; payload is the caller's again when
// it returns. Otherwise it is as Append.
func (l *Log) AppendCopy(payload []byte) (seq uint64, err error) {
	return l.AppendCopyHeader(nil, payload)
}

// AppendCopyHeader is AppendCopy with a header, see AppendHeader.
func (l *Log) AppendCopyHeader(header, payload []byte) (seq uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	done := false
	defer l.changed(debug.SetPanicOnFault(true), &done, &err)
	seq, err = l.appendCopy(header, payload)
	done = true
	if err != nil {
		return 0, fmt.Errorf("append to log: %w", err)
	}
	return seq, nil
}

func (l *Log) appendCopy(header, payload []byte) (seq uint64, err error) {
	fs := int(l.p.g.frameSize)
	n := (len(payload) + fs - 1) / fs
	if err := l.room(header, min(n, 1)); err != nil {
		return 0, err
	}
	l.staged.frames = slices.Grow(l.staged.frames[:0], n)[:n]
	frames := l.staged.frames
	if got := l.p.Alloc(frames); got < n {
		l.p.UnrefAll(frames[:got])
		return 0, l.noFrames(n, got)
	}
	runs := 0
	for rest := frames; len(rest) > 0; runs++ {
		rest = rest[l.p.neighbours(rest):]
	}
	if err := l.room(header, runs); err != nil {
		l.p.UnrefAll(frames)
		return 0, err
	}
	later := len(payload) <= copyLater && len(l.staged.copies)+len(payload) <= copiesMax
	if later {
		l.staged.copies = append(l.staged.copies, payload...)
	}
	s := l.begun(header, runs)
	for len(frames) > 0 { // the references of Alloc become the log's
		k := l.p.neighbours(frames)
		piece := payload[:min(len(payload), k*fs)]
		payload = payload[len(piece):]
		r := run{frame: frames[0], len: uint32(len(piece))}
		frames = frames[k:]
		if later {
			s.run(r, 0, payloadCopy)
		} else {
			s.run(r, l.p.copySum(l.p.Offset(r.frame, 0), piece, 0), payloadDone)
		}
	}
	if !later {
		l.p.handOver()
	}
	return s.end(), nil
}

// headerEntries is how many entries a record needs besides those of its runs.
func headerEntries(header []byte, runs int) int {
	switch {
	case len(header) == 0 && runs == 0:
		return 1 // flagEmpty
	case runs > 0 && len(header) <= headerBeside:
		return 0
	}
	return (len(header) + headerAlone - 1) / headerAlone
}

// room checks that a record of so many runs can be appended.
func (l *Log) room(header []byte, runs int) error {
	if err := l.writable(); err != nil {
		return err
	}
	if len(header) > MaxHeader {
		return fmt.Errorf("%w: a header of %d bytes; the limit is %d", ErrSize, len(header), MaxHeader)
	}
	if most := l.MaxFragments(); runs > most {
		return fmt.Errorf("%w: %d fragments; a record of this pool has at most %d", ErrFragment, runs, most)
	}
	n := uint64(runs + headerEntries(header, runs))
	if used := l.next() - l.head.pos; used+n > l.p.g.logLen {
		return fmt.Errorf("%w: %d of %d log entries hold records from %d on and %d more are needed; truncate the log or create the pool with more log entries",
			ErrFull, used, l.p.g.logLen, l.head.seq, n)
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
	aside []byte // header for the first run's entry
}

// begun starts a record and stages what comes before its runs.
func (l *Log) begun(header []byte, runs int) staging {
	extra := headerEntries(header, runs)
	s := staging{l: l, n: extra + runs}
	if extra == 0 {
		s.aside = header
		return s
	}
	if len(header) == 0 {
		s.stage(&entry{flags: flagEmpty}, payloadDone)
	}
	for len(header) > 0 {
		var e entry
		k := copy(e.header[:], header)
		e.flags = flagHeader | uint16(k)<<headerShift
		s.stage(&e, payloadDone)
		header = header[k:]
	}
	return s
}

// run stages one, whose checksum is sum unless there is something to do.
func (s *staging) run(r run, sum uint32, todo uint8) {
	e := entry{run: r, sum: sum}
	e.flags = uint16(copy(e.header[:], s.aside)) << headerShift
	if uint32(r.off)+r.len > s.l.p.g.frameSize {
		e.flags |= flagRun
	}
	s.aside = nil
	s.stage(&e, todo)
}

func (s *staging) stage(e *entry, todo uint8) {
	l := s.l
	e.pos, e.seq, e.epoch, e.index = l.next(), l.stagedSeq, l.head.epoch, uint16(s.i)
	if s.i == 0 {
		e.flags |= flagFirst
	}
	s.i++
	if s.i == s.n {
		e.flags |= flagLast
	}
	l.staged.add(e, todo)
	l.index.set(e, &l.p.g)
}

func (s *staging) end() uint64 {
	seq := s.l.stagedSeq
	s.l.stagedSeq++
	s.l.publishStaged()
	return seq
}
