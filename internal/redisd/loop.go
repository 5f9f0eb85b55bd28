package redisd

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pastenet/paste/internal/redisd/resp"
	"github.com/pastenet/paste/internal/ringserve"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// loop serves the connections of one ring. It belongs to the goroutine that runs
// it; inbox, and the clients' replies, to whoever has the DB locked.
type loop struct {
	s    *Server
	id   int
	ring Ring
	rx   *pasteapi.NetmapRing
	listener
	sender
	timer

	conns   []*conn // by descriptor
	closing []*conn
	inbox   []*conn // those to which something has happened while it was not their turn
	held    int     // bytes of input that is not complete

	args   [][]byte
	parser resp.Parser // of a request that began in the segment that is looked at
	reply  []byte      // memory for replies
	burst  []byte      // for what gather puts together
	spares [][]byte    // for what connections keep
	waits  int64       // when the first of the blocked has waited for long enough; 0: none has a limit
}

// listener is where connections come from.
type listener struct {
	ringserve.Acceptor
	draining  bool // no connection is accepted any more
	dismissed bool // and idle ones are closed
}

func newLoop(s *Server, i int, r Ring, fd int) *loop {
	l := &loop{s: s, id: i, ring: r, rx: r.RX(), timer: newTimer(&s.cfg)}
	l.Tx = ringserve.NewTx(r, s.db.Pool(), s.db.Commit)
	l.Acceptor = ringserve.Acceptor{
		Fd: fd, Ring: r, Life: &s.life, Notes: &ringserve.Notes{Log: s.cfg.Logger.With("ring", i)}, Limit: s.cfg.MaxConns,
		Welcome: l.newConn, Accepted: &s.cmd.Accepted, Rejected: &s.cmd.Rejected,
	}
	if !s.cfg.Encrypted {
		l.Busy = []byte("-ERR max number of clients reached\r\n")
	}
	return l
}

// run serves until the server is stopped.
func (l *loop) run() error {
	if err := l.Watch(); err != nil {
		return err
	}
	defer l.shut()
	for !l.s.life.In(ringserve.Stopped) {
		if l.s.life.In(ringserve.Draining) && !l.draining {
			l.drain()
		} else if l.draining && l.dismissed && l.Open == 0 {
			break
		}
		_, err := l.ring.Poll(l.pollTimeout())
		l.Syncs++
		l.timer.advance()
		if err != nil {
			// With ErrRingCorrupt too, as package httpd does.
			return fmt.Errorf("poll: %w", err)
		}
		if err := l.turn(); err != nil {
			return err
		}
	}
	return nil
}

// turn does all that there is to do between two Polls.
func (l *loop) turn() error {
	db := l.s.db
	db.Lock()
	defer db.Unlock()
	l.s.active = l
	defer func() { l.s.active = nil }()
	db.Now = time.Now().UnixMilli()
	for _, step := range []func() error{l.proceed, l.batch, l.expire, l.tend, l.visit} {
		if err := step(); err != nil {
			return err
		}
	}
	if len(l.closing) > 0 {
		l.reap()
	}
	if l.draining {
		l.dismiss()
	} else if slices.Contains(l.ring.Ready(), l.Fd) {
		l.Accept()
	}
	if err := db.Commit(); err != nil {
		return err
	}
	l.Trim()
	l.dropFrames()
	return nil
}

// earlySegments is after how many segments of a batch its replies leave, so that the
// clients work while the rest is processed. A push costs a system call, and a
// commit.
const earlySegments = 32

// batch processes all RX slots.
func (l *loop) batch() error {
	i := l.rx.Head
	if i == l.rx.Tail {
		return nil
	}
	// Where a commit is a sync of a disk, the whole batch shares one.
	early := l.s.db.Pool().Backing() != pmem.BackingFile
	for n := 1; i != l.rx.Tail; i, n = l.rx.Next(i), n+1 {
		slot := l.rx.Slot(i)
		c := l.find(slot.Fd())
		if c == nil {
			continue
		}
		if slot.Closed() {
			l.peerClosed(c)
			continue
		}
		if c.phase != serving {
			continue
		}
		payload := l.rx.Payload(slot)
		if next := l.rx.Next(i); next != l.rx.Tail && l.rx.Slot(next).Fd() == c.fd && !l.rx.Slot(next).Closed() {
			i, payload = l.gather(i, c.fd)
			if err := l.long(c); err != nil {
				return err
			}
		}
		if err := l.input(c, payload); err != nil {
			return err
		}
		if early && n%earlySegments == 0 {
			if err := l.Push(); err != nil {
				return err
			}
		}
	}
	l.rx.Head, l.rx.Cur = i, i
	l.s.stats.Batches++
	return nil
}

// gatherMost is how many bytes are put together at once.
const gatherMost = 64 << 10

// gather puts the payloads of a connection that follow each other together: most
// commands of a burst cross the border of a buffer, and to copy all of it once costs
// less than to keep each of them until its rest comes. It returns the last slot.
func (l *loop) gather(i uint32, fd int) (last uint32, payload []byte) {
	b := l.burst[:0]
	for {
		slot := l.rx.Slot(i)
		b = append(b, l.rx.Payload(slot)...)
		next := l.rx.Next(i)
		if next == l.rx.Tail || len(b) >= gatherMost || l.rx.Slot(next).Fd() != fd || l.rx.Slot(next).Closed() {
			break
		}
		i = next
	}
	l.burst = b
	return i, b
}

// long tells the ring, once, that a connection may bring more than a frame at a time: then
// what can be read at once is one payload, and needs not be put together.
func (l *loop) long(c *conn) error {
	if c.long {
		return nil
	}
	c.long = true
	return l.ring.Expect(c.fd, 0)
}

// visit looks after the connections to which something has happened while it was
// not their turn.
func (l *loop) visit() error {
	for len(l.inbox) > 0 {
		c := l.inbox[0]
		l.inbox = l.inbox[1:]
		c.woken = false
		if c.phase != serving {
			continue
		}
		if err := l.answer(c); err != nil {
			return err
		}
		if err := l.resume(c); err != nil {
			return err
		}
	}
	l.inbox = nil
	return nil
}

// tend ends the waits that have lasted for long enough, and removes what has
// expired.
func (l *loop) tend() error {
	db := l.s.db
	if l.waits != 0 && db.Now >= l.waits {
		l.waits = 0
		for _, c := range l.conns {
			if c == nil || c.phase != serving {
				continue
			}
			if until, is := c.client.Blocked(); is && until != 0 {
				if until <= db.Now {
					c.client.TimedOut()
					c.Wake()
				} else {
					l.waitsUntil(until)
				}
			}
		}
	}
	if l.id == 0 && l.timer.now >= l.nextCron {
		l.nextCron = l.timer.now + cronEvery
		if !db.Idle() && db.Cron() {
			l.nextCron = l.timer.now
		}
		if err := db.TakeErr(); err != nil && !errors.Is(err, pmem.ErrFull) {
			return err
		}
	}
	return nil
}

func (l *loop) waitsUntil(until int64) {
	if until != 0 && (l.waits == 0 || until < l.waits) {
		l.waits = until
	}
}

// shut ends all connections after what was answered has been sent.
func (l *loop) shut() {
	l.s.db.Lock()
	defer l.s.db.Unlock()
	if err := l.s.db.Commit(); err == nil {
		if err := l.ring.TxSync(); err != nil {
			l.Log.Warn("last push of replies", "err", err)
		}
	} else if !errors.Is(err, pmem.ErrLost) { // which Run returns
		l.Log.Error("last commit", "err", err)
	}
	for _, c := range l.conns {
		if c != nil {
			l.destroy(c)
		}
	}
	l.Acceptor.Close()
	// Stored values that TX slots hold are the ring's to give up.
	l.Tx.Close()
	l.dropFrames()
}
