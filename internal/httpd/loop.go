package httpd

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/ringserve"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// loop serves the connections of one ring. All of it but what is published
// belongs to the goroutine that runs it.
type loop struct {
	s       *Server
	ring    Ring
	rx      *pasteapi.NetmapRing
	replies *replies
	listener
	sender
	published

	conns   []*conn // by descriptor
	free    []*conn
	closing []*conn
	budget  budget
	stash   []uint32 // frames for payload that is copied, from the pool
	stashed [stashSize]uint32
	timer   timer

	handler Handler // nil: the log's
	x       Exchange
	seg     segment // being looked at
	staged  bool    // records were appended since the last commit

	nextChore time.Duration // at most so long does it sleep; below 0: any time
}

// listener is where connections come from.
type listener struct {
	ringserve.Acceptor
	draining  bool // no connection is accepted any more
	dismissed bool // and idle ones are closed
}

// sender is where replies go.
type sender struct {
	ringserve.Tx
	senders []*conn // have more to send than fits
	parked  []*conn // read the log, and wait for records
	small   [160]byte
	scratch []byte // a piece of an answer
}

// published are the counters.
type published struct {
	n     Stats
	pubMu sync.Mutex
	pub   Stats // copy of n, for other goroutines
}

func newLoop(s *Server, i int, r Ring, replies *replies) *loop {
	l := &loop{
		s: s, ring: r, rx: r.RX(), replies: replies,
		sender:    sender{scratch: make([]byte, 0, 16<<10)},
		timer:     newTimer(&s.cfg),
		nextChore: -1,
	}
	l.Tx = ringserve.NewTx(r, s.pool, l.commit)
	l.Acceptor = ringserve.Acceptor{
		Ring: r, Life: &s.life, Notes: &ringserve.Notes{Log: logger(s.cfg.Logger, i)}, Limit: s.cfg.MaxConns,
		Welcome: func(fd int, _ unix.Sockaddr) { l.newConn(fd) }, Accepted: &l.n.Accepted, Rejected: &l.n.Rejected,
	}
	if !s.cfg.Encrypted {
		l.Busy = replies.busy
	}
	l.budget.limit = s.maxFrames
	if l.x.l = l; s.handler != nil {
		l.handler = s.handler()
	}
	return l
}

func logger(l *slog.Logger, ring int) *slog.Logger {
	if l == nil {
		l = slog.Default()
	}
	return l.With("ring", ring)
}

// run serves until the server is stopped.
func (l *loop) run() error {
	if err := l.Watch(); err != nil {
		return err
	}
	defer l.shut()
	if err := l.chores(); err != nil {
		return err
	}
	for !l.s.life.In(ringserve.Stopped) {
		if l.s.life.In(ringserve.Draining) && !l.draining {
			l.drain()
		} else if l.draining && l.Open == 0 {
			break
		}
		_, err := l.ring.Poll(l.pollTimeout())
		l.Syncs++
		l.timer.advance()
		if err != nil {
			// With ErrRingCorrupt too: the ring works again, but requests that were
			// answered stand in it once more, and answers are lost. It is a bug of
			// this server, and clients that connect again know where they are.
			return fmt.Errorf("poll: %w", err)
		}
		if err := l.proceed(); err != nil {
			return err
		}
		if err := l.batch(); err != nil {
			return err
		}
		if err := l.expire(); err != nil {
			return err
		}
		if err := l.follow(); err != nil {
			return err
		}
		if len(l.closing) > 0 {
			l.reap()
		}
		if l.draining {
			l.dismiss()
		} else if slices.Contains(l.ring.Ready(), l.Fd) {
			l.Accept()
		}
		if err := l.endBatch(); err != nil {
			return err
		}
	}
	return nil
}

// earlyReplies is after how many answers of a batch of so many payloads its replies
// leave, so that the clients work while the rest is processed: at the latest when a
// quarter of it is done. Each push may cost the wake-up of a client's CPU.
func earlyReplies(payloads uint32) uint64 {
	return uint64(min(max(payloads/4, 4), mostEarly))
}

// Largest bursts. Where payloads are long, runBurst is the only one: a client's CPU is busy
// for longer with each, and to be woken less often is worth more.
const (
	mostEarly = 64
	runBurst  = 32
)

// stashSize is how many frames for copies are taken from the pool at once.
const stashSize = 128

// batch processes all RX slots.
func (l *loop) batch() error {
	if l.rx.Empty() {
		return nil
	}
	// Where a commit is a sync of a disk, the whole batch shares one.
	early := l.s.pool.Backing() != pmem.BackingFile
	pushed, burst := l.n.Requests, earlyReplies(l.rx.Space())
	for !l.rx.Empty() {
		slot := l.rx.Slot(l.rx.Head)
		l.rx.Head = l.rx.Next(l.rx.Head)
		l.rx.Cur = l.rx.Head
		if slot.Flags&pasteapi.NS_RUN != 0 {
			burst = runBurst // much is done for each
		}
		if err := l.slot(slot); err != nil {
			return err
		}
		if early && l.n.Requests-pushed >= burst {
			pushed = l.n.Requests
			if err := l.Push(); err != nil {
				return err
			}
		}
	}
	l.n.Batches++
	return nil
}

// slot processes one RX slot.
func (l *loop) slot(slot *pasteapi.Slot) error {
	c := l.find(slot.Fd())
	switch {
	case c == nil:
	case slot.Closed():
		l.peerClosed(c)
	case c.phase == serving:
		l.seg = segment{payload: l.rx.Payload(slot), slot: slot, doff: slot.Doff(),
			copied: slot.Flags&pasteapi.NS_COPIED != 0, run: slot.Flags&pasteapi.NS_RUN != 0}
		err := l.input(c, &l.seg)
		l.seg = segment{}
		return err
	}
	return nil
}

// endBatch makes the batch's records durable, so that its replies may leave.
func (l *loop) endBatch() error {
	if err := l.commit(); err != nil {
		return err
	}
	l.Trim()
	l.dropFrames()
	if err := l.keepReserve(); err != nil {
		return err
	}
	if err := l.chores(); err != nil {
		return err
	}
	l.n.Connections = uint64(l.Open)
	l.pubMu.Lock()
	l.pub = l.n
	l.pubMu.Unlock()
	return nil
}

// dropFrames gives up the references that are not needed any more, but for
// those to the frame that is being looked at. It reports whether there were any.
func (l *loop) dropFrames() bool {
	var kept []uint32
	if l.seg.kept {
		for _, f := range l.Drop {
			if f == l.seg.frame {
				kept = append(kept, f)
			}
		}
		l.Drop = slices.DeleteFunc(l.Drop, func(f uint32) bool { return f == l.seg.frame })
	}
	any := len(l.Drop) > 0
	if any {
		l.s.pool.UnrefAll(l.Drop)
	}
	l.Drop = append(l.Drop[:0], kept...)
	if l.budget.dropped > 0 {
		l.budget.release()
	}
	return any
}

// shut ends all connections after what was answered has been sent.
func (l *loop) shut() {
	cut := 0
	for _, c := range l.conns {
		if c != nil && c.phase == serving {
			cut++
		}
	}
	if cut > 0 {
		l.Log.Warn("requests cut off by the end of the server", "connections", cut, "drain_timeout", l.s.cfg.DrainTimeout)
	}
	if err := l.commit(); err == nil {
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
	l.Drop = append(l.Drop, l.stash...)
	l.stash = nil
	l.dropFrames()
	l.n.Connections = 0
	l.pubMu.Lock()
	l.pub = l.n
	l.pubMu.Unlock()
}
