package httpd

import (
	"errors"
	"fmt"
	"time"

	"github.com/pastenet/paste/internal/intake"
	"github.com/pastenet/paste/pmem"
)

// Retention says what of the log is dropped before it is full. Records from the
// slowest cursor on that protects stay in any case.
type Retention struct {
	// Bytes of payload are kept at most; 0 is any number.
	Bytes int64
	// Age is how old a record becomes at most, to a 64th of it or to a second;
	// 0 is any age.
	Age time.Duration
	// Read drops what all cursors have acknowledged, once there is a cursor.
	Read bool
}

// retainer is what the server knows of its retention. The log's lock protects it.
type retainer struct {
	Retention
	bytes    int64  // in the log, if there is a limit
	withheld uint64 // records that stay for a cursor's sake alone
	cursor   intake.Cursor
	more     bool // there is more to drop
}

// dropAtOnce is the most records that are dropped in one go, between two batches.
const dropAtOnce = 1024

// newRetainer counts what is in the log, if there is a limit for it.
func newRetainer(o Retention, p *pmem.Pool) retainer {
	r := retainer{Retention: o}
	if log := p.Log(); o.Bytes > 0 {
		for seq := log.Head(); seq < log.Committed(); seq++ {
			r.bytes += length(log, seq)
		}
	}
	return r
}

// stored counts a record.
func (r *retainer) stored(n int64) { r.bytes += n }

// retainLog drops what is not to be kept any more. Everything that this loop has
// appended is committed, and the log is locked.
func (l *loop) retainLog() error {
	s, r, log := l.s, &l.s.retain, l.s.pool.Log()
	head, next := log.Head(), log.Committed()
	below := head
	if r.Age > 0 {
		if err := s.kept.Mark(next, intake.MarkEvery(r.Age)); err != nil && !errors.Is(err, pmem.ErrFull) {
			return err
		}
		old, err := s.kept.Older(r.Age, head)
		if err != nil {
			return err
		}
		if err := s.kept.Commit(); err != nil {
			return err
		}
		below = max(below, old)
	}
	if r.Read {
		read, _ := s.kept.AllRead()
		below = max(below, read)
	}
	most := min(next, head+dropAtOnce)
	below = min(max(below, s.overSize(head, most)), next)
	r.withheld = 0
	if c, ok := s.kept.Floor(); ok && c.Next < below {
		r.cursor, r.withheld = c, below-max(c.Next, head)
		below = max(c.Next, head)
		l.Warn("records are kept longer than they should, for a cursor", "cursor", c.Name, "from", c.Next, "records", r.withheld)
	}
	r.more = below > most
	if below = min(below, most); below <= head {
		return nil
	}
	l.n.Dropped += below - head
	return s.drop(below)
}

// overSize returns the number below which records have to go for the size's sake,
// most at most.
func (s *Server) overSize(head, most uint64) (below uint64) {
	below = head
	if s.retain.Bytes == 0 {
		return below
	}
	for left := s.retain.bytes; left > s.retain.Bytes && below < most; below++ {
		left -= length(s.pool.Log(), below)
	}
	return below
}

// length is that of a record; 0 of a damaged one, here and when it was counted.
func length(log *pmem.Log, seq uint64) int64 {
	rec, err := log.Record(seq)
	if err != nil {
		return 0
	}
	return rec.Length
}

// drop drops the records below a number, once it is durable where the cursors are.
func (s *Server) drop(below uint64) error {
	log := s.pool.Log()
	if err := s.kept.Commit(); err != nil {
		return err
	}
	if s.retain.Bytes > 0 {
		for seq := log.Head(); seq < below; seq++ {
			s.retain.bytes -= length(log, seq)
		}
	}
	return log.Truncate(below - 1)
}

// wrap drops the older half of the log, of which everything is committed, as far as
// no cursor protects it, and reports whether there was anything.
func (s *Server) wrap() (bool, error) {
	s.lockLog()
	defer s.unlockLog()
	log := s.pool.Log()
	head, n := log.Head(), uint64(log.Len())
	if n == 0 {
		return false, nil
	}
	below := head + (n-1)/2 + 1
	if c, ok := s.kept.Floor(); ok {
		if below = min(below, c.Next); below <= head {
			return false, nil
		}
	}
	return true, s.drop(below)
}

// chores does what is to be done by time, and notes how long the loop may sleep
// before it does so again; below 0 is for ever.
func (l *loop) chores() (err error) {
	if l.handler != nil {
		l.nextChore, err = l.handler.Tick()
		return err
	}
	if l.nextChore = -1; l.s.retain.Retention == (Retention{}) {
		return nil
	}
	l.s.lockLog()
	defer l.s.unlockLog()
	if err := l.retainLog(); err != nil {
		return err
	}
	switch r := &l.s.retain; {
	case r.more:
		l.nextChore = 0
	case r.Age > 0 && l.s.pool.Log().Len() > 0:
		l.nextChore = intake.MarkEvery(r.Age)
	}
	return nil
}

// protected returns the cursor that protects the oldest record, if one does.
func (s *Server) protected() (c intake.Cursor, all bool) {
	if s.kept == nil {
		return c, false
	}
	c, ok := s.kept.Floor()
	return c, ok && c.Next <= s.pool.Log().Head()
}

// protects says what a cursor does, and what can be done about it.
func protects(c intake.Cursor) string {
	return fmt.Sprintf("cursor %q protects the records from %d on; acknowledge them, or delete it", c.Name, c.Next)
}

// fullReply is the answer to a body that finds no room.
func (l *loop) fullReply(how int) []byte {
	l.s.lockLog()
	defer l.s.unlockLog()
	if c, all := l.s.protected(); all && (l.s.cfg.OnFull == Wrap || l.s.cfg.Retain != (Retention{})) {
		return render(507, how, textField, "no room in the pool: "+protects(c)+"\n")
	}
	return l.replies.full[how]
}
