package netmap

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// pipe is two directions between two ports of one memory. Buffers go through it by
// exchange: a sender gets one that the receiver has given back.
type pipe struct {
	name string
	mem  *Memory
	refs int
	// release gives the name back.
	release func() error
	open    [2]bool // master, slave
	dirs    [2]*direction
}

// direction is one way through a pipe.
type direction struct {
	mem   *Memory
	owner uint32
	event int // eventfd, readable while frames wait

	mu     sync.Mutex
	frames []piece // the first to come out first
	spare  []uint32
	raised bool
}

// piece is a slot on its way.
type piece struct {
	buf   uint32
	len   uint16
	flags uint16
}

// pipes are those of this process.
var pipes struct {
	sync.Mutex
	open map[string]*pipe
}

// openPipe opens one end of a pipe, 0 the master or 1 the slave, and makes the pipe
// if it is the first.
func openPipe(name string, end int, m *Memory, slots int) (*pipe, error) {
	pipes.Lock()
	defer pipes.Unlock()
	p := pipes.open[name]
	if p == nil {
		release, err := claim("pipe " + name)
		if err != nil {
			return nil, err
		}
		p = &pipe{name: name, mem: m, release: release}
		for i := range p.dirs {
			d, err := newDirection(m, slots)
			if err != nil {
				p.free()
				return nil, err
			}
			p.dirs[i] = d
		}
		if pipes.open == nil {
			pipes.open = map[string]*pipe{}
		}
		pipes.open[name] = p
	}
	if p.open[end] {
		return nil, fmt.Errorf("this end of pipe %s: %w by another port of this process", name, ErrBusy)
	}
	if p.mem != m {
		return nil, fmt.Errorf("pipe %s: %w: its other end has memory %d, and both ends have one (Options.Memory, @%d)", name, ErrBusy, p.mem.id, p.mem.id)
	}
	p.open[end] = true
	p.refs++
	return p, nil
}

func (p *pipe) close(end int) {
	pipes.Lock()
	defer pipes.Unlock()
	p.open[end] = false
	if p.refs--; p.refs == 0 {
		delete(pipes.open, p.name)
		p.free()
	}
}

func (p *pipe) free() {
	_ = p.release()
	for _, d := range p.dirs {
		if d != nil {
			d.mem.giveAll(d.owner)
			_ = unix.Close(d.event)
		}
	}
}

func newDirection(m *Memory, slots int) (*direction, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	d := &direction{mem: m, owner: m.newOwner(), event: fd, spare: make([]uint32, slots)}
	if n := m.take(d.spare, d.owner); n < slots {
		m.give(d.spare[:n], d.owner)
		_ = unix.Close(fd)
		return nil, noBuffers(m, slots, n)
	}
	return d, nil
}

// raise makes the event readable, and lower not. The caller holds the lock.
func (d *direction) raise() {
	if !d.raised {
		d.raised = true
		_, _ = unix.Write(d.event, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

func (d *direction) lower() {
	if d.raised {
		d.raised = false
		var b [8]byte
		_, _ = unix.Read(d.event, b[:])
	}
}

// pipeTx sends into a direction.
type pipeTx struct {
	*direction
	next  uint32 // not sent yet, up to the ring's head
	count TxStats
}

func (q *pipeTx) sync(r *ring, head uint32) error {
	r.head = head
	d := q.direction
	d.mu.Lock()
	for ; q.next != head && len(d.spare) > 0; q.next = r.next(q.next) {
		s, buf := &r.slots[q.next], r.bufs[q.next]
		length, flags := s.Len, s.Flags&(NS_MOREFRAG|NS_NO_LEARN)
		d.frames = append(d.frames, piece{buf, length, flags})
		other := d.spare[len(d.spare)-1]
		d.spare = d.spare[:len(d.spare)-1]
		d.mem.owner[buf].Store(d.owner)
		d.mem.owner[other].Store(r.owner)
		r.bufs[q.next] = other
		s.BufIdx, s.Flags = other, NS_BUF_CHANGED
		q.count.Bytes += uint64(length)
		if flags&NS_MOREFRAG == 0 {
			q.count.Frames++
		}
	}
	if len(d.frames) > 0 {
		d.raise()
	}
	d.mu.Unlock()
	r.freeUpTo(q.next)
	return nil
}

func (q *pipeTx) unsent(r *ring) bool { return q.next != r.head }

func (q *pipeTx) end(r *ring) {
	r.settle()
	q.mem.giveAll(r.owner)
}

func (q *pipeTx) stats() (TxStats, error) { return q.count, nil }

// pipeRx receives from a direction.
type pipeRx struct {
	*direction
	count RxStats
}

func (q *pipeRx) sync(r *ring, head uint32) error {
	d := q.direction
	d.mu.Lock()
	for ; r.head != head; r.head = r.next(r.head) {
		buf := r.bufs[r.head]
		d.mem.owner[buf].Store(d.owner)
		d.spare = append(d.spare, buf)
	}
	n := min(r.room(), len(d.frames))
	for _, f := range d.frames[:n] {
		r.fill(f.buf, int(f.len), f.flags)
		d.mem.owner[f.buf].Store(r.owner)
		q.count.Bytes += uint64(f.len)
		if f.flags&NS_MOREFRAG == 0 {
			q.count.Frames++
		}
	}
	if d.frames = append(d.frames[:0], d.frames[n:]...); len(d.frames) == 0 {
		d.lower()
	}
	d.mu.Unlock()
	return nil
}

func (q *pipeRx) pending() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.frames) > 0
}

func (q *pipeRx) fd() int { return q.event }

// end gives the buffers that the program has to the pipe.
func (q *pipeRx) end(r *ring) {
	r.settle()
	q.mu.Lock()
	defer q.mu.Unlock()
	for ; r.head != r.tail; r.head = r.next(r.head) {
		buf := r.bufs[r.head]
		q.mem.owner[buf].Store(q.owner)
		q.spare = append(q.spare, buf)
	}
}

func (q *pipeRx) stats() (RxStats, error) { return q.count, nil }
