package ringnet

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// pump receives for the connections of one ring, which is used by its goroutine alone.
type pump struct {
	net   *Net
	ring  *pasteapi.Ring
	pool  *pmem.Pool
	sleep *sleeper

	conns     []*Conn // by descriptor
	open      int
	listening map[int]*accepting // by descriptor
	current   *Conn              // whose inbox is locked, as it gets what arrived

	mu     sync.Mutex
	tasks  []task // from others
	ended  bool
	ending atomic.Bool
	asleep atomic.Bool
	done   chan struct{}
	err    error // valid when done is closed
}

// task is something that only the pump may do.
type task struct {
	do func(*pump, *Conn)
	c  *Conn
	fn func() // instead
}

func newPump(n *Net, ring *pasteapi.Ring) (*pump, error) {
	s, err := newSleeper(ring)
	if err != nil {
		return nil, err
	}
	return &pump{net: n, ring: ring, pool: n.pool, sleep: s, listening: map[int]*accepting{}, done: make(chan struct{})}, nil
}

// post has the pump do something soon. It reports false if the pump has ended; then
// nothing is registered any more.
func (p *pump) post(t task) bool {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return false
	}
	p.tasks = append(p.tasks, t)
	p.mu.Unlock()
	p.wake()
	return true
}

// call has the pump do something, and waits for it.
func (p *pump) call(fn func()) bool {
	ran := make(chan struct{})
	if !p.post(task{fn: func() { fn(); close(ran) }}) {
		return false
	}
	<-ran
	return true
}

func (p *pump) wake() {
	if p.asleep.Swap(false) {
		p.ring.Wake()
	}
}

// stop ends the pump, and returns why it had ended before, if it had.
func (p *pump) stop() error {
	p.ending.Store(true)
	p.wake()
	<-p.done
	return p.err
}

func (p *pump) run() {
	defer close(p.done)
	// A fault in the pool's memory ends the pump as any error does.
	err := p.pool.Guard(p.loop)
	if err == nil {
		err = p.pool.Err()
	}
	p.err = err
	p.finish()
	p.sleep.close()
}

// loop receives until it is told to end.
func (p *pump) loop() error {
	for !p.ending.Load() {
		n, err := p.ring.Poll(0)
		if n == 0 && err == nil && len(p.ring.Ready()) == 0 {
			n, err = p.rest()
		}
		if err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		if n > 0 {
			p.deliver()
		}
		for _, fd := range p.ring.Ready() {
			p.ready(fd)
		}
		p.work()
		if n > 0 {
			// Those who were woken up run first, and ask for more.
			runtime.Gosched()
		}
	}
	return nil
}

// rest sleeps until there is something to do.
func (p *pump) rest() (int, error) {
	p.asleep.Store(true)
	defer p.asleep.Store(false)
	return p.sleep.until(func() bool { return p.ending.Load() || p.busy() })
}

func (p *pump) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.tasks) > 0
}

// deliver hands over what the ring has received.
func (p *pump) deliver() {
	defer p.turnTo(nil) // also when a fault ends it
	for seg := range p.ring.Segments() {
		c := p.find(seg.Fd())
		if c == nil {
			continue
		}
		if c != p.current {
			p.turnTo(c)
		}
		if seg.Closed() {
			c.in.eof, c.in.cause = true, seg.Cause()
			c.in.signal()
			continue
		}
		c.in.add(seg)
	}
}

// turnTo ends the delivery to one connection, and begins that to the next one.
func (p *pump) turnTo(c *Conn) {
	if last := p.current; last != nil {
		in := &last.in.inbox
		if in.filled > 0 || !in.empty() {
			in.signal()
		}
		if in.bytes >= holdAt && !in.held {
			// It can only be gone, and then nothing comes.
			in.held = p.ring.Hold(last.fd) == nil
		}
		in.mu.Unlock()
	}
	if p.current = c; c != nil {
		c.in.mu.Lock()
	}
}

func (p *pump) find(fd int) *Conn {
	if uint(fd) >= uint(len(p.conns)) {
		return nil
	}
	return p.conns[fd]
}

// ready handles a descriptor that the ring watches.
func (p *pump) ready(fd int) {
	if a := p.listening[fd]; a != nil {
		p.accept(a)
		return
	}
	if c := p.find(fd); c != nil {
		c.out.mu.Lock()
		c.out.signal()
		c.out.mu.Unlock()
	}
}

// work does what others have asked for.
func (p *pump) work() {
	p.mu.Lock()
	tasks := p.tasks
	p.tasks = nil
	p.mu.Unlock()
	for _, t := range tasks {
		if t.fn != nil {
			t.fn()
		} else {
			t.do(p, t.c)
		}
	}
}

// The tasks of connections.

func release(p *pump, c *Conn) {
	if p.find(c.fd) == c {
		_ = p.ring.Release(c.fd) // registered, so it cannot fail
	}
}

func room(p *pump, c *Conn) {
	if p.find(c.fd) != c {
		return
	}
	if err := p.ring.WatchRoom(c.fd); err != nil {
		p.net.warn("watch a connection for room", err)
		p.ready(c.fd) // the writer tries again
	}
}

func destroy(p *pump, c *Conn) {
	if p.find(c.fd) != c {
		return
	}
	p.conns[c.fd] = nil
	p.open--
	if err := p.ring.Unregister(c.fd); err != nil {
		p.net.warn("unregister a connection", err)
	}
	if err := c.sock.close(); err != nil {
		p.net.warn("close a connection", err)
	}
	p.net.left()
}

// add registers a socket, which is the connection's from then on; on failure it stays the
// caller's.
func (p *pump) add(c *Conn) error {
	if err := p.ring.Register(c.fd); err != nil {
		return err
	}
	for len(p.conns) <= c.fd {
		p.conns = append(p.conns, make([]*Conn, len(p.conns)+64)...)
	}
	p.conns[c.fd] = c
	p.open++
	p.net.entered()
	return nil
}

// finish takes leave of all connections and listeners.
func (p *pump) finish() {
	p.mu.Lock()
	p.ended = true
	tasks := p.tasks
	p.tasks = nil
	p.mu.Unlock()
	for _, t := range tasks {
		if t.fn != nil {
			t.fn() // somebody may wait for it
		}
	}
	for _, c := range p.conns {
		if c != nil {
			c.end()
			destroy(p, c)
		}
	}
	for _, a := range p.listening {
		p.unlisten(a)
	}
}
