package pmem

import (
	"fmt"
	"time"

	"github.com/pastenet/paste/internal/hist"
)

// CommitTimes is how long commits took that had something to store, in nanoseconds.
func (l *Log) CommitTimes() hist.Snapshot { return l.times.Snapshot() }

// Commit makes every staged record durable: when it returns nil, they will be
// found after a crash. An entry is never found without its payload: either the
// payload is durable before the first entry is stored, or, where that would
// cost a second sync, both are stored and synced at once and the checksums tell
// after a crash which records of that batch are whole.
//
// An error that wraps ErrIO stays: what the batch has become is unknown, and
// every later Append and Commit returns the same.
func (l *Log) Commit() error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	l.mu.Lock()
	if err := l.writable(); err != nil {
		l.mu.Unlock()
		return fmt.Errorf("commit log: %w", err)
	}
	batch, seq := l.staged, l.stagedSeq
	n := uint64(len(batch.todo))
	if n == 0 {
		l.mu.Unlock()
		return nil
	}
	tail := l.tail
	l.staged, l.inflight = l.spare.reset(), n
	l.mu.Unlock()

	begun := time.Now()
	err := l.p.storing(func() error { return l.store(&batch, tail) })

	l.times.Since(begun)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spare = batch
	if err != nil {
		l.fail(fmt.Errorf("commit log: %w", err))
		return l.failed
	}
	l.tail, l.last, l.inflight = tail+n, seq, 0
	l.publish()
	l.signal()
	return nil
}

// store makes a batch durable, its entries from position tail on.
func (l *Log) store(b *batch, tail uint64) error {
	l.p.finishPayloads(b)
	ordered, err := l.p.dom.Order()
	if err != nil {
		return err
	}
	for e := b.entries; len(e) > 0; e = e[entryLen:] {
		sealEntry(e[:entryLen], l.seed, tail, !ordered)
	}
	g := &l.p.g
	for e := b.entries; len(e) > 0; { // twice at most: the ring wraps
		off := l.slotOffset(tail)
		n := min(uint64(len(e)), g.logOff+g.logLen*entryLen-off)
		l.p.CopyNT(off, e[:n])
		e = e[n:]
		tail += n / entryLen
	}
	return l.p.dom.Fence()
}

// Truncate drops the committed records with sequence numbers up to and
// including upTo and gives up their references to frames. The new head is
// durable before the first frame is freed. Staged records are not touched.
func (l *Log) Truncate(upTo uint64) error {
	return l.cut("truncate log", func() error { return l.truncate(upTo) })
}

func (l *Log) truncate(upTo uint64) error {
	if err := l.writable(); err != nil {
		return err
	}
	upTo = min(upTo, l.last-1)
	if upTo < l.head.seq {
		return nil
	}
	end := l.index.find(upTo+1, l.head.pos, l.tail)
	epoch := l.head.epoch
	if end <= l.own {
		last, err := l.entryAt(end - 1)
		if err != nil {
			return err
		}
		epoch = last.epoch
	}
	h := l.head
	h.gen++
	h.pos, h.seq, h.minEpoch, h.durable = end, upTo+1, epoch, l.tail
	if err := writeHead(l.p.mem, l.p.dom, &l.p.g, l.seed, &h); err != nil {
		l.fail(fmt.Errorf("truncate log: %w", err))
		return err
	}
	from := l.head.pos
	l.head = h
	l.index.unref(&l.p.frames, from, end)
	l.publish()
	return nil
}
