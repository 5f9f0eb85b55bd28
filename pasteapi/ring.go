package pasteapi

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/uring"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/xsk"
	"golang.org/x/sys/unix"
)

// Ring is one pair of RX and TX rings with the connections registered to it.
// It does all of its work inside the application's calls, and is used by one
// goroutine at a time; Wake alone may be called from any.
type Ring struct {
	pool  *pmem.Pool
	mem   []byte // the pool's
	shift uint

	rings   []byte // mapping of both rings
	rx, tx  *NetmapRing
	rxView  ringView
	txView  ringView
	rxFull  bool
	starved bool  // a NIC queue has hardly a frame to receive into
	spin    int64 // nanoseconds; negative: for ever

	nics    []*xsk.Socket // this ring's NIC queues
	steer   *bpf.Steer    // nil without a NIC
	order   *bpf.Order    // nil without a NIC
	behind  bool          // the NIC queues let nothing pass, see updateBehind
	inj     injector
	tk      *bpf.Ticket
	tickets *tickets
	io      *uring.Ring

	epoll  int
	wakeMu sync.Mutex // of wakeFd, which any goroutine may write to
	wakeFd int
	inPoll atomic.Bool
	ending atomic.Bool // Close waits for Poll
	ready  []int
	events []unix.EpollEvent
	checks uint32 // Polls since the events were last looked at

	maxConns int
	conns    int
	byFd     []*conn
	byCookie map[uint64]*conn
	flows    flows
	active   []*conn // have items to give out
	waiting  []*conn // stray bytes that the kernel has not queued yet
	closing  []*conn // end when everything is sent
	hungup   []*conn // an event says that they ended
	lost     uint32  // deliveries lost so far

	owned    frameSet
	free     []uint32 // frames that circulate between the rings
	reserve  []uint32 // frames for Keep, straight from the pool
	scratch  []xsk.Desc
	txConns  []*conn
	txNext   []int32 // by slot: next slot of the same connection
	iovecs   []unix.Iovec
	msgs     []unix.Msghdr
	txLimit  int
	txCopied int  // bytes that wait in copies
	blocked  int  // connections with a queue
	durable  bool // flush payloads before they are injected
	lastTick int64

	stats     Stats
	published Stats
	closed    bool
}

// reserveBatch is how many frames Keep takes from the pool at once.
const reserveBatch = 32

func newRing(o *Options, id int) (_ *Ring, err error) {
	r := &Ring{
		pool:     o.Pool,
		mem:      o.Pool.Mem(),
		shift:    o.Pool.FrameShift(),
		spin:     int64(o.Spin),
		epoll:    -1,
		wakeFd:   -1,
		events:   make([]unix.EpollEvent, 256),
		maxConns: o.MaxConns,
		byCookie: map[uint64]*conn{},
		flows:    newFlows(),
		scratch:  make([]xsk.Desc, harvestBatch),
		txNext:   make([]int32, o.Slots),
		iovecs:   make([]unix.Iovec, 0, o.Slots),
		msgs:     make([]unix.Msghdr, 0, o.Slots),
		txLimit:  o.TxLimit,
		durable:  o.DurableAck,
		owned:    make(frameSet, o.Pool.Frames()),
		reserve:  make([]uint32, 0, reserveBatch),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := r.makeRings(o.Slots, id); err != nil {
		return nil, err
	}
	if r.tk, err = bpf.LoadTicket(bpf.TicketOptions{MaxConns: o.MaxConns}); err != nil {
		return nil, err
	}
	r.tickets = newTickets(r.tk.Table())
	if r.io, err = uring.New(uint32(min(o.Slots, 1024)), uring.Options{}); err != nil {
		return nil, fmt.Errorf("create io_uring: %w", err)
	}
	if err := r.makeEvents(); err != nil {
		return nil, err
	}
	return r, nil
}

// makeRings lays out both rings in memory outside of Go's heap, as netmap
// does, and gives every slot a buffer.
func (r *Ring) makeRings(slots, id int) error {
	size := ringBytes(slots)
	b, err := unix.Mmap(-1, 0, 2*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("map rings: %w", os.NewSyscallError("mmap", err))
	}
	r.rings = b
	r.rx = r.makeRing(&r.rxView, unsafe.Pointer(&b[0]), slots, id, dirRX)
	r.tx = r.makeRing(&r.txView, unsafe.Pointer(&b[size]), slots, id, dirTX)
	for _, v := range []*ringView{&r.rxView, &r.txView} {
		if r.pool.Alloc(v.bufs) < len(v.bufs) {
			r.pool.UnrefAll(v.bufs) // index 0 is no frame, and ignored
			return fmt.Errorf("give buffers to %d slots: %w (%d frames in all; make the pool larger or the rings smaller)",
				2*slots, ErrNoBuffers, r.pool.Frames())
		}
		r.owned.addAll(v.bufs)
		for i, f := range v.bufs {
			v.ring.slot(uint32(i)).BufIdx = f
		}
	}
	r.tx.Tail = uint32(slots - 1)
	r.txView.tail = r.tx.Tail
	return nil
}

func (r *Ring) makeRing(v *ringView, at unsafe.Pointer, slots, id, dir int) *NetmapRing {
	n := (*NetmapRing)(at)
	n.BufOfs = int64(uintptr(unsafe.Pointer(&r.mem[0]))) - int64(uintptr(at))
	n.NumSlots = uint32(slots)
	n.NrBufSize = uint32(r.pool.FrameSize())
	n.RingID = uint16(id)
	n.Dir = uint16(dir)
	n.BufAlign = uint64(r.pool.FrameSize())
	v.name = [...]string{dirRX: "rx", dirTX: "tx"}[dir]
	v.ring = n
	v.slots = uint32(slots)
	v.first, v.frames = r.pool.FirstFrame(), r.pool.Frames()
	v.bufs = make([]uint32, slots)
	v.owned = r.owned
	return n
}

// RX is the ring of received payloads.
func (r *Ring) RX() *NetmapRing { return r.rx }

// TX is the ring of payloads to send.
func (r *Ring) TX() *NetmapRing { return r.tx }

// frame is the memory of a frame.
func (r *Ring) frame(f uint32) []byte {
	at := int(f) << r.shift
	return r.mem[at : at+1<<r.shift : at+1<<r.shift]
}

// takeFrame takes a frame for the circulation between NIC, ring and kernel.
func (r *Ring) takeFrame() (uint32, bool) {
	if len(r.free) == 0 {
		var batch [64]uint32
		n := r.pool.Alloc(batch[:])
		if n == 0 {
			return 0, false
		}
		r.owned.addAll(batch[:n])
		r.free = append(r.free, batch[:n]...)
	}
	f := r.free[len(r.free)-1]
	r.free = r.free[:len(r.free)-1]
	return f, true
}

// haveFrames says whether there are frames for the largest delivery.
func (r *Ring) haveFrames() bool {
	room := 1<<r.shift - strayDoff
	need := (bpf.DeliveryMax + room - 1) / room
	if len(r.free) >= need {
		return true
	}
	var frames [8]uint32
	f := frames[:need]
	for i := range f {
		var ok bool
		if f[i], ok = r.takeFrame(); !ok {
			r.free = append(r.free, f[:i]...)
			r.stats.NoFrames++
			return false
		}
	}
	r.free = append(r.free, f...)
	return true
}

// giveFrame returns a frame to the circulation.
func (r *Ring) giveFrame(f uint32) {
	r.free = append(r.free, f)
	if len(r.free) >= 1024 {
		r.owned.removeAll(r.free[512:])
		r.pool.UnrefAll(r.free[512:])
		r.free = r.free[:512]
	}
}

// Keep takes a slot's buffer out of the ring and puts a free one in its place:
// the caller then owns one reference of the returned frame (pmem.Pool.Unref
// gives it up). It is how an application keeps a payload without copying it.
//
// Frames for Keep come from the pool, never from those that the port needs to
// go on receiving: with ErrNoBuffers the ring still works.
func (r *Ring) Keep(s *Slot) (frame uint32, err error) {
	if r.closed {
		return 0, ErrClosed
	}
	if len(r.reserve) == 0 {
		r.reserve = r.reserve[:reserveBatch]
		r.reserve = r.reserve[:r.pool.Alloc(r.reserve)]
		if len(r.reserve) == 0 {
			return 0, ErrNoBuffers
		}
	}
	i, v := r.indexOf(s)
	if v == nil {
		return 0, fmt.Errorf("keep: slot is not in the ring: %w", ErrRingCorrupt)
	}
	frame = s.BufIdx
	s.BufIdx = r.reserve[len(r.reserve)-1]
	r.reserve = r.reserve[:len(r.reserve)-1]
	s.Flags |= NS_BUF_CHANGED
	v.bufs[i] = s.BufIdx
	r.owned.remove(frame)
	r.owned.add(s.BufIdx)
	return frame, nil
}

// indexOf finds which slot of which ring s is.
func (r *Ring) indexOf(s *Slot) (uint32, *ringView) {
	p := uintptr(unsafe.Pointer(s))
	for _, v := range []*ringView{&r.rxView, &r.txView} {
		base := uintptr(unsafe.Pointer(v.ring)) + ringHeaderSize
		if p >= base && p < base+uintptr(v.slots)*unsafe.Sizeof(Slot{}) {
			return uint32((p - base) / unsafe.Sizeof(Slot{})), v
		}
	}
	return 0, nil
}

// close releases everything. NIC sockets and the injector are the Port's.
func (r *Ring) close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	var errs []error
	for _, c := range r.byFd {
		if c != nil {
			errs = append(errs, r.unregister(c.fd))
		}
	}
	r.wakeMu.Lock()
	defer r.wakeMu.Unlock()
	for _, fd := range []*int{&r.epoll, &r.wakeFd} {
		if *fd >= 0 {
			errs = append(errs, os.NewSyscallError("close", unix.Close(*fd)))
			*fd = -1
		}
	}
	if r.io != nil {
		errs = append(errs, r.io.Close())
	}
	if r.tk != nil {
		errs = append(errs, r.tk.Close())
	}
	if r.rings != nil {
		// Buffers exchanged since the last sync. Of a broken ring the ones before
		// that go back.
		_, _ = r.rxView.accept(r.pool)
		_, _ = r.txView.accept(r.pool)
	}
	r.pool.UnrefAll(r.owned.all(r.pool.Refs))
	r.pool.UnrefAll(r.reserve)
	r.owned, r.free, r.reserve = nil, nil, nil
	if r.rings != nil {
		errs = append(errs, os.NewSyscallError("munmap", unix.Munmap(r.rings)))
		r.rings, r.rx, r.tx = nil, nil, nil
	}
	return errors.Join(errs...)
}
