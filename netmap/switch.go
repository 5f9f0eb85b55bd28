package netmap

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Switch is a learning bridge between ports, as netmap's VALE: a frame goes to the
// port where its destination was last seen to send from, to all others if that is
// nowhere, and never back to where it came from. Ports of one Memory exchange
// buffers; to others frames are copied.
//
// One goroutine runs it; Attach, Detach and Stats may be called from any.
type Switch struct {
	opts    SwitchOptions
	members []*member // of the running goroutine
	table   macTable
	keep    keeper
	pieces  []Piece // scratch

	epfd, wake int

	mu      sync.Mutex
	jobs    []func() // for the running goroutine
	closed  bool
	running bool
	busy    bool // somebody does a job while nobody runs
	rested  sync.Cond
	list    []*member // the same as members, for Stats and checks
}

// SwitchOptions describe a Switch. The zero value is usable.
type SwitchOptions struct {
	// Log, if not nil, is told of every frame.
	Log FrameLog
	// Logger is told of ports that are lost; nil = slog.Default().
	Logger *slog.Logger
}

// FrameLog writes down what a switch forwards. It is used by the switch's goroutine.
type FrameLog interface {
	// Attached is told the number of a port before its first frame.
	Attached(port int, name string) error
	// Frame is told of a frame that a port received, before it is sent, with its
	// pieces: length and buffer in a Memory. With kept the log has taken a reference
	// of each buffer, which must be a pool's frames: they are sent, and never
	// received into again.
	Frame(port int, pieces []Piece) (kept bool, err error)
	// Commit makes durable what was told. Nothing of it is sent before.
	Commit() error
	// MakeRoom is called when the pool has no free frame for the ports to go on with.
	MakeRoom() error
}

// Piece is a part of a frame: Len bytes at the start of a buffer, which is a frame of
// a pool from PieceOffset on if the Memory is a pool's.
type Piece struct {
	Memory *Memory
	Buf    uint32
	Len    uint16
}

// PieceOffset is how far into a pool's frame a buffer begins.
const PieceOffset = headroom

// Bytes is the piece's memory.
func (p Piece) Bytes() []byte { return p.Memory.Buf(p.Buf)[:p.Len:p.Len] }

// SwitchStats are the counters of one port of a switch.
type SwitchStats struct {
	Name    string `json:"name"`
	In      uint64 `json:"in"`      // frames that it received
	Out     uint64 `json:"out"`     // frames that were put into its TX rings
	Dropped uint64 `json:"dropped"` // for it, as its TX rings were full
}

// member is what the switch takes for one port: a NIC's rings, or its host's.
type member struct {
	port    *Port
	number  int
	name    string
	rx      []*rxRing
	tx      []*txRing
	queued  bool // something is in its TX rings
	in      atomic.Uint64
	out     atomic.Uint64
	dropped atomic.Uint64
}

// NewSwitch makes a switch without ports.
func NewSwitch(o SwitchOptions) (_ *Switch, err error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	s := &Switch{opts: o, epfd: -1, wake: -1}
	s.rested.L = &s.mu
	if s.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
		s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err == nil {
		err = s.watch(s.wake)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("new switch: %w", err), s.Close())
	}
	return s, nil
}

func (s *Switch) watch(fd int) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(s.epfd, unix.EPOLL_CTL_ADD, fd, &ev))
}

// Attach adds a port, which is the switch's from then on and is closed by Detach or
// Close. A port with rings of the NIC and of the host's ("netmap:eth0*") counts as
// two. A port that has one direction only can be attached. Two ports that would be a
// loop are refused: ErrBusy.
func (s *Switch) Attach(p *Port) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("attach %s: switch: %w", p.Name(), ErrClosed)
	}
	for _, m := range s.list {
		if m.port == p || p.spec.End != 0 && m.port.spec.Name == p.spec.Name && m.port.spec.Pipe == p.spec.Pipe {
			s.mu.Unlock()
			return fmt.Errorf("attach %s: %w: %s is attached, and frames would go in circles", p.Name(), ErrBusy, m.name)
		}
	}
	nic, host := &member{port: p, name: p.spec.Port()}, &member{port: p, name: p.spec.Port() + "^"}
	for i := range p.rx {
		to := nic
		if _, ok := p.rx[i].from.(*hostRx); ok {
			to = host
		}
		to.rx = append(to.rx, &p.rx[i])
	}
	for i := range p.tx {
		to := nic
		if _, ok := p.tx[i].to.(*hostTx); ok {
			to = host
		}
		to.tx = append(to.tx, &p.tx[i])
	}
	var added []*member
	for _, m := range []*member{nic, host} {
		if len(m.rx)+len(m.tx) > 0 {
			m.number = len(s.list)
			s.list = append(s.list, m)
			added = append(added, m)
		}
	}
	s.mu.Unlock()
	var err error
	if e := s.do(func() { err = s.add(p, added) }); e != nil {
		return e
	}
	return err
}

// add is Attach on the switch's goroutine.
func (s *Switch) add(p *Port, added []*member) error {
	if s.opts.Log != nil {
		for _, m := range added {
			if err := s.opts.Log.Attached(m.number, m.name); err != nil {
				return fmt.Errorf("attach %s: %w", p.Name(), err)
			}
		}
	}
	if err := s.watch(p.Fd()); err != nil {
		return fmt.Errorf("attach %s: %w", p.Name(), err)
	}
	s.members = append(s.members, added...)
	return nil
}

// Detach takes a port out and closes it.
func (s *Switch) Detach(p *Port) error {
	if err := s.do(func() { s.remove(p) }); err != nil {
		return err
	}
	return p.Close()
}

// remove takes a port's members out. What was learned of them is forgotten. Numbers
// stay: a detached port leaves a gap.
func (s *Switch) remove(p *Port) {
	rest := s.members[:0]
	for _, m := range s.members {
		if m.port != p {
			rest = append(rest, m)
			continue
		}
		s.table.forget(m)
	}
	clear(s.members[len(rest):])
	s.members = rest
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.list {
		if m.port == p {
			m.port = &Port{} // its counters stay
		}
	}
}

// do has the switch's goroutine do something, or does it if there is none.
func (s *Switch) do(job func()) error {
	done := make(chan struct{})
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("switch: %w", ErrClosed)
	}
	if !s.running {
		// Run does not begin before the job is done, nor does another.
		for s.busy {
			s.rested.Wait()
		}
	}
	if !s.running {
		s.busy = true
		s.mu.Unlock()
		job()
		s.mu.Lock()
		s.busy = false
		s.rested.Broadcast()
		s.mu.Unlock()
		return nil
	}
	s.jobs = append(s.jobs, func() { job(); close(done) })
	s.mu.Unlock()
	s.nudge()
	<-done
	return nil
}

func (s *Switch) nudge() { _, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// Stats are the counters of all ports that were ever attached, in their order.
func (s *Switch) Stats() (list []SwitchStats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.list {
		list = append(list, SwitchStats{m.name, m.in.Load(), m.out.Load(), m.dropped.Load()})
	}
	return list
}

// Close closes the ports. Run must have ended.
func (s *Switch) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	var errs []error
	for len(s.members) > 0 {
		p := s.members[0].port
		s.remove(p)
		errs = append(errs, p.Close())
	}
	s.keep.close()
	for _, fd := range []int{s.epfd, s.wake} {
		if fd >= 0 {
			errs = append(errs, os.NewSyscallError("close", unix.Close(fd)))
		}
	}
	return errors.Join(errs...)
}
