package httpd

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// fakeRing is a Ring over ordinary socket calls. It cuts what it receives into
// segments of at most mss bytes, and checks that nothing is sent while a
// record is uncommitted. Where rings share the log it may be another's: then no reply
// is sent that names a record which is not committed.
type fakeRing struct {
	pool    *pmem.Pool
	shared  bool
	mss     int
	rx, tx  *pasteapi.NetmapRing
	txFirst uint32 // first slot not sent yet

	conns   map[int]*fakeConn
	watched []int
	ready   []int
	wake    int
}

type fakeConn struct {
	eof   bool
	cause error
	queue []byte
}

// fakeDoff is where payload begins in a received frame: what Ethernet, IPv4
// and TCP headers with a timestamp would take.
const fakeDoff = 66

func newFakeRing(pool *pmem.Pool, slots, mss int) *fakeRing {
	r := &fakeRing{pool: pool, mss: mss, conns: map[int]*fakeConn{}}
	r.rx, r.tx = r.makeRing(slots), r.makeRing(slots)
	r.tx.Tail = uint32(slots - 1)
	var err error
	if r.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		panic(err)
	}
	return r
}

func (r *fakeRing) makeRing(slots int) *pasteapi.NetmapRing {
	mem, err := unix.Mmap(-1, 0, 256+16*slots, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	n := (*pasteapi.NetmapRing)(unsafe.Pointer(&mem[0]))
	n.BufOfs = int64(uintptr(unsafe.Pointer(&r.pool.Mem()[0]))) - int64(uintptr(unsafe.Pointer(&mem[0])))
	n.NumSlots = uint32(slots)
	n.NrBufSize = uint32(r.pool.FrameSize())
	bufs := make([]uint32, slots)
	if r.pool.Alloc(bufs) != slots {
		panic("pool is too small for the fake rings")
	}
	for i, b := range bufs {
		n.Slot(uint32(i)).BufIdx = b
	}
	return n
}

func (r *fakeRing) close() {
	unix.Close(r.wake)
	for _, n := range []*pasteapi.NetmapRing{r.rx, r.tx} {
		unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(n)), 256+16*int(n.NumSlots)))
	}
}

func (r *fakeRing) RX() *pasteapi.NetmapRing { return r.rx }
func (r *fakeRing) TX() *pasteapi.NetmapRing { return r.tx }
func (r *fakeRing) Queues() int              { return 0 }

func (r *fakeRing) PlaceConnections(...int) error { return nil }

func (r *fakeRing) Register(fd int) error {
	if r.conns[fd] != nil {
		return pasteapi.ErrRegistered
	}
	r.conns[fd] = new(fakeConn)
	return nil
}

func (r *fakeRing) Unregister(fd int) error {
	if r.conns[fd] == nil {
		return fmt.Errorf("fd %d is not registered", fd)
	}
	for i := r.txFirst; i != r.tx.Head; i = r.tx.Next(i) {
		if r.tx.Slot(i).Fd() == fd {
			panic("unregistered with a TX slot waiting: its bytes would go to the descriptor's next owner")
		}
	}
	for i := r.rx.Head; i != r.rx.Tail; i = r.rx.Next(i) {
		if r.rx.Slot(i).Fd() == fd {
			panic("unregistered with an RX slot waiting: it would be taken for the descriptor's next owner's")
		}
	}
	delete(r.conns, fd)
	return nil
}

func (r *fakeRing) CloseCause(fd int) error { return r.conns[fd].cause }

func (r *fakeRing) TxQueued(fd int) int {
	if c := r.conns[fd]; c != nil {
		return len(c.queue)
	}
	return 0
}

func (r *fakeRing) Watch(fd int) error { r.watched = append(r.watched, fd); return nil }

func (r *fakeRing) Unwatch(fd int) error {
	r.watched = slices.DeleteFunc(r.watched, func(w int) bool { return w == fd })
	return nil
}

func (r *fakeRing) Ready() []int { return r.ready }
func (r *fakeRing) Wake()        { unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

func (r *fakeRing) Keep(s *pasteapi.Slot) (uint32, error) {
	var spare [1]uint32
	if r.pool.Alloc(spare[:]) == 0 {
		return 0, pasteapi.ErrNoBuffers
	}
	frame := s.BufIdx
	s.BufIdx = spare[0]
	s.Flags |= pasteapi.NS_BUF_CHANGED
	return frame, nil
}

func (r *fakeRing) Expect(int, int64) error { return nil }

func (r *fakeRing) TxSync() error {
	if log := r.pool.Log(); !r.shared && r.txFirst != r.tx.Head && uint64(log.Len()) != log.Next()-log.Head() {
		panic("a reply leaves before the log is committed")
	}
	for ; r.txFirst != r.tx.Head; r.txFirst = r.tx.Next(r.txFirst) {
		slot := r.tx.Slot(r.txFirst)
		c := r.conns[slot.Fd()]
		if c == nil {
			panic("TX slot of an unregistered descriptor")
		}
		if r.shared {
			r.checkStored(r.tx.Payload(slot))
		}
		c.queue = append(c.queue, r.tx.Payload(slot)...)
	}
	for fd, c := range r.conns {
		if len(c.queue) > 0 {
			n, err := unix.SendmsgN(fd, c.queue, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if err == nil {
				c.queue = c.queue[n:]
			} else if err != unix.EAGAIN {
				c.queue = nil
			}
		}
	}
	r.tx.Tail = (r.tx.Head + r.tx.NumSlots - 1) % r.tx.NumSlots
	return nil
}

// checkStored looks at the replies that say under which number a body was stored.
func (r *fakeRing) checkStored(replies []byte) {
	for _, rest := range bytes.Split(replies, []byte("X-Paste-Seq: "))[1:] {
		text, _, whole := bytes.Cut(rest, []byte("\r\n"))
		if seq, err := strconv.ParseUint(string(text), 10, 64); whole && err == nil && seq >= r.pool.Log().Committed() {
			panic(fmt.Sprintf("a reply leaves before record %d is committed", seq))
		}
	}
}

func (r *fakeRing) Poll(timeout time.Duration) (int, error) {
	if err := r.TxSync(); err != nil {
		return 0, err
	}
	r.receive()
	if r.rx.Head != r.rx.Tail {
		timeout = 0
	}
	r.wait(timeout)
	r.receive()
	return int(r.rx.Space()), nil
}

// wait sleeps until something is readable, or a queue can be written.
func (r *fakeRing) wait(timeout time.Duration) {
	fds := []unix.PollFd{{Fd: int32(r.wake), Events: unix.POLLIN}}
	for _, fd := range r.watched {
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	for fd, c := range r.conns {
		p := unix.PollFd{Fd: int32(fd)}
		if !c.eof {
			p.Events |= unix.POLLIN
		}
		if len(c.queue) > 0 {
			p.Events |= unix.POLLOUT
		}
		if p.Events != 0 {
			fds = append(fds, p)
		}
	}
	ms := -1
	if timeout >= 0 {
		ms = int(timeout.Milliseconds())
	}
	unix.Poll(fds, ms)
	if fds[0].Revents != 0 {
		unix.Read(r.wake, make([]byte, 8))
	}
	r.ready = r.ready[:0]
	for i, fd := range r.watched {
		if fds[1+i].Revents != 0 {
			r.ready = append(r.ready, fd)
		}
	}
}

func (r *fakeRing) receive() {
	for fd, c := range r.conns {
		for !c.eof {
			next := r.rx.Next(r.rx.Tail)
			if next == r.rx.Head {
				return
			}
			slot := r.rx.Slot(r.rx.Tail)
			buf := r.rx.Buf(slot)[fakeDoff:]
			n, err := unix.Read(fd, buf[:min(len(buf), r.mss)])
			if err == unix.EAGAIN {
				break
			}
			if err != nil {
				n, c.cause = 0, err
			}
			c.eof = n == 0
			slot.SetFd(fd)
			slot.SetDoff(fakeDoff)
			slot.Len = uint16(fakeDoff + n)
			r.rx.Tail = next
		}
	}
}
