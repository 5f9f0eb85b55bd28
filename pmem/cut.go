package pmem

import (
	"fmt"
	"runtime/debug"
)

// cutVersion is the first format whose readers know what TruncateAfter leaves.
const cutVersion = 4

// TruncateAfter drops the records with sequence numbers above after: committed
// ones, and all that is staged. It gives up their references to frames, and the
// next record gets the number after+1 again. When it returns nil that is
// durable; a crash on the way finds all of the committed records, or none of
// those that were to be dropped.
//
// It is for a log that has one owner, such as a replicated one: numbers that
// come a second time mean something else than before. Nobody may read the
// records that are dropped meanwhile; another process that reads the pool may
// find its log damaged, and must open it again. In a pool of format version 2 or
// 3 it is refused with ErrVersion.
func (l *Log) TruncateAfter(after uint64) error {
	return l.cut("truncate end of log", func() error { return l.truncateAfter(after) })
}

// Discard drops the records that were appended since the last Commit, whoever
// appended them. Nothing of them was durable.
func (l *Log) Discard() error {
	return l.cut("discard staged records", func() error {
		if err := l.writable(); err != nil {
			return err
		}
		l.discard()
		return nil
	})
}

// cut runs f, which drops records, while nobody else uses the log.
func (l *Log) cut(what string, f func() error) (err error) {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	pin()
	defer unpin()
	done := false
	defer l.changed(debug.SetPanicOnFault(true), &done, &err)
	err = f()
	done = true
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// discard needs commitMu as well, so that nothing is on its way.
func (l *Log) discard() {
	l.index.unref(&l.p.frames, l.tail, l.next())
	l.staged = l.staged.reset()
	l.stagedSeq = l.last
	l.publish()
}

// truncateAfter needs one change of the head: entries from its durable position
// on that carry an older epoch are none of the log's (see oldest).
func (l *Log) truncateAfter(after uint64) error {
	if err := l.writable(); err != nil {
		return err
	}
	if l.p.version < cutVersion {
		return fmt.Errorf("%w: the pool has version %d, whose readers would find the dropped records again; dump it and restore it into a new pool", ErrVersion, l.p.version)
	}
	l.discard()
	after = max(after, l.head.seq-1)
	if after+1 >= l.last {
		return nil
	}
	end := l.index.find(after+1, l.head.pos, l.tail)
	h := l.head
	h.gen++
	h.epoch++
	h.durable = end
	if err := writeHead(l.p.mem, l.p.dom, &l.p.g, l.seed, &h); err != nil {
		l.fail(fmt.Errorf("truncate end of log: %w", err))
		return err
	}
	old := l.tail
	l.head, l.own = h, end
	l.tail, l.last, l.stagedSeq = end, after+1, after+1
	l.index.unref(&l.p.frames, end, old)
	l.publish()
	return nil
}

// oldest returns the smallest epoch that a live entry at pos can carry, if the
// entry before it carries epoch. Entries are stored behind the durable position
// of the head and with its epoch, so that those with a smaller one are what a
// crash or TruncateAfter has left there.
func (l *Log) oldest(pos uint64, epoch uint32) uint32 {
	if l.p.version >= cutVersion && pos >= l.head.durable {
		return max(epoch, l.head.epoch)
	}
	return epoch
}
