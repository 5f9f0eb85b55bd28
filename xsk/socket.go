package xsk

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Desc is one entry of the RX and TX rings: struct xdp_desc of linux/if_xdp.h.
type Desc struct {
	Addr    uint64 // offset into the UMEM, bytes
	Len     uint32 // bytes
	Options uint32 // DescMore, DescTxMetadata, or 0
}

// Socket is an AF_XDP socket that is bound to one queue of one device. See the package
// documentation for what may be called at the same time.
type Socket struct {
	fill, comp, rx, tx ring

	umem  *Umem
	fd    int
	shift uint

	ifindex    int
	name       string // of the device, for errors
	queue      int
	netns      uint64 // cookie: the same ifindex may exist in several namespaces
	zeroCopy   bool
	needWakeup bool
	multi      bool
	txBudget   int
}

// How often Open tries to get a queue that is in use. The kernel gives a queue back
// some time after its socket was closed, or its process killed: after an RCU grace
// period, from a workqueue. That takes 20 ms, and on a machine that is short of CPU
// time more than five seconds. Tries are counted: while a virtual machine stands
// still, its kernel gives nothing back.
const settleStep = 2 * time.Millisecond

var settleTries = int(20 * time.Second / settleStep)

// Open creates a socket in the calling thread's network namespace and binds it.
// To open one in another namespace, lock the goroutine to its thread and switch
// that before.
//
// The first socket of a Umem registers the memory with the kernel, later ones
// share that (XDP_SHARED_UMEM); each has its own rings. The kernel insists that
// sharing sockets agree on copy or zero-copy, on NeedWakeup and on MultiBuffer. Where this one
// differs from all that are open (a veth beside a zero-copy NIC, say), the
// memory is registered once more for it. With Auto, a socket takes the mode of
// those that are open, if its device has it: open the device that can do
// zero-copy first.
//
// A queue that was in use a moment ago is waited for, twenty seconds at least.
//
// Errors: ErrBusy, ErrNotSupported, ErrMemory, ErrNoSuchQueue, fs.ErrPermission without
// CAP_NET_RAW.
func Open(u *Umem, o Options) (*Socket, error) {
	runtime.LockOSThread() // all system calls must see the same namespace
	defer runtime.UnlockOSThread()

	name := interfaceName(o.Ifindex)
	fail := func(err error) (*Socket, error) {
		return nil, fmt.Errorf("open AF_XDP socket on queue %d of %s: %w", o.Queue, name, err)
	}
	if err := o.complete(); err != nil {
		return fail(err)
	}

	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return fail(fmt.Errorf("umem: %w", net.ErrClosed))
	}

	s, err := u.open(name, o)
	if err != nil {
		return fail(err)
	}
	u.sockets = append(u.sockets, s)
	return s, nil
}

// open tries the registrations that o.Mode allows, best first. The caller holds u.mu.
func (u *Umem) open(name string, o Options) (*Socket, error) {
	var zc, cp *Socket // any open socket of each kind: a registration lives as long as one of its sockets
	for _, s := range u.sockets {
		if s.needWakeup != o.NeedWakeup || s.multi != o.MultiBuffer {
			continue
		}
		if s.zeroCopy {
			zc = s
		} else {
			cp = s
		}
	}
	switch {
	case o.Mode == ZeroCopy:
		return u.bind(name, o, ZeroCopy, zc)
	case o.Mode == Copy || zc == nil && cp != nil:
		return u.bind(name, o, Copy, cp)
	case zc == nil:
		return u.bind(name, o, Auto, nil)
	}
	s, err := u.bind(name, o, ZeroCopy, zc)
	if errors.Is(err, ErrNotSupported) {
		return u.bind(name, o, Copy, cp)
	}
	return s, err
}

// bind makes one socket. With peer, it shares the peer's registration, which is of that
// mode already.
func (u *Umem) bind(name string, o Options, mode BindMode, peer *Socket) (_ *Socket, err error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("create socket: %w: needs CAP_NET_RAW", err)
	case errors.Is(err, unix.EAFNOSUPPORT):
		return nil, fmt.Errorf("create socket: %w: this kernel was built without AF_XDP (CONFIG_XDP_SOCKETS): %w", ErrNotSupported, err)
	case err != nil:
		return nil, fmt.Errorf("create socket: %w", err)
	}
	s := &Socket{umem: u, fd: fd, shift: u.shift, ifindex: o.Ifindex, name: name, queue: o.Queue, needWakeup: o.NeedWakeup, multi: o.MultiBuffer}
	for _, r := range s.rings() {
		r.reset()
	}
	defer func() {
		if err != nil {
			s.release()
		}
	}()

	if s.netns, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil {
		return nil, fmt.Errorf("read SO_NETNS_COOKIE: %w", err)
	}
	where := fmt.Sprintf("queue %d of %s", o.Queue, name)
	for _, other := range u.sockets {
		// The kernel would answer EINVAL: such a socket would have to use the other's
		// fill and completion ring.
		if other.netns == s.netns && other.ifindex == s.ifindex && other.queue == s.queue {
			return nil, &detail{text: where + " is in use by another AF_XDP socket", kind: ErrBusy, err: errors.New("of the same Umem")}
		}
	}
	if peer == nil {
		if err = u.register(fd); err != nil {
			return nil, err
		}
	}
	if err = s.createRings(o); err != nil {
		return nil, err
	}
	if err = s.setBusyPoll(o.BusyPoll); err != nil {
		return nil, err
	}

	sa := &unix.SockaddrXDP{Ifindex: uint32(o.Ifindex), QueueID: uint32(o.Queue)}
	if peer != nil {
		// All other flags are the peer's; the kernel refuses them here.
		sa.Flags = unix.XDP_SHARED_UMEM
		sa.SharedUmemFD = uint32(peer.fd)
	} else {
		switch mode {
		case Copy:
			sa.Flags = unix.XDP_COPY
		case ZeroCopy:
			sa.Flags = unix.XDP_ZEROCOPY
		}
		if o.NeedWakeup {
			sa.Flags |= unix.XDP_USE_NEED_WAKEUP
		}
		if o.MultiBuffer {
			sa.Flags |= unix.XDP_USE_SG
		}
	}
	// A bind that failed leaves the socket as it was, memory registered and rings made.
	for left := settleTries; ; left-- {
		err = unix.Bind(fd, sa)
		if !errors.Is(err, unix.EBUSY) || o.NoWait || left <= 0 {
			break
		}
		time.Sleep(settleStep)
	}
	if err != nil {
		return nil, bindError(where, name, mode, err)
	}

	var flags uint32 // struct xdp_options
	if err = getsockopt(fd, unix.SOL_XDP, unix.XDP_OPTIONS, unsafe.Pointer(&flags), unsafe.Sizeof(flags)); err != nil {
		return nil, fmt.Errorf("read XDP_OPTIONS: %w", err)
	}
	s.zeroCopy = flags&unix.XDP_OPTIONS_ZEROCOPY != 0
	return s, nil
}

func (s *Socket) rings() [4]*ring { return [4]*ring{&s.fill, &s.comp, &s.rx, &s.tx} }

func (s *Socket) createRings(o Options) error {
	var off unix.XDPMmapOffsets
	if err := getsockopt(s.fd, unix.SOL_XDP, unix.XDP_MMAP_OFFSETS, unsafe.Pointer(&off), unsafe.Sizeof(off)); err != nil {
		return fmt.Errorf("read XDP_MMAP_OFFSETS: %w", err)
	}
	const addrSize, descSize = unsafe.Sizeof(uint64(0)), unsafe.Sizeof(Desc{})
	for _, c := range []struct {
		name  string
		r     *ring
		opt   int
		pgoff int64
		off   unix.XDPRingOffset
		size  int
		entry uintptr
	}{
		{"fill", &s.fill, unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_PGOFF_FILL_RING, off.Fr, o.FillSize, addrSize},
		{"completion", &s.comp, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_UMEM_PGOFF_COMPLETION_RING, off.Cr, o.CompSize, addrSize},
		{"RX", &s.rx, unix.XDP_RX_RING, unix.XDP_PGOFF_RX_RING, off.Rx, o.RxSize, descSize},
		{"TX", &s.tx, unix.XDP_TX_RING, unix.XDP_PGOFF_TX_RING, off.Tx, o.TxSize, descSize},
	} {
		if c.size == 0 {
			continue
		}
		if err := c.r.create(s.fd, c.opt, c.pgoff, c.off, c.size, c.entry); err != nil {
			return fmt.Errorf("%s ring of %d entries: %w", c.name, c.size, err)
		}
	}
	if o.TxSize == 0 {
		return nil
	}
	s.txBudget = defaultTxBudget
	if want := min(max(o.TxBudget, defaultTxBudget), o.TxSize); want > defaultTxBudget {
		// Best effort: kernels before 6.17 answer ENOPROTOOPT.
		if unix.SetsockoptInt(s.fd, unix.SOL_XDP, maxTxSkbBudget, want) == nil {
			s.txBudget = want
		}
	}
	return nil
}

func (s *Socket) setBusyPoll(b *BusyPoll) error {
	if b == nil {
		return nil
	}
	set := func(name string, opt, value int) error {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, opt, value); err != nil {
			return fmt.Errorf("set %s to %d: %w", name, value, err)
		}
		return nil
	}
	prefer := 0
	if b.Prefer {
		prefer = 1
	}
	err := set("SO_PREFER_BUSY_POLL", unix.SO_PREFER_BUSY_POLL, prefer)
	if err == nil {
		err = set("SO_BUSY_POLL", unix.SO_BUSY_POLL, int(b.Time.Microseconds()))
	}
	if err == nil && b.Budget > 0 {
		err = set("SO_BUSY_POLL_BUDGET", unix.SO_BUSY_POLL_BUDGET, b.Budget)
	}
	return err
}

// Close unmaps the rings and closes the socket. Nothing else may use the socket
// meanwhile; afterwards its ring methods find nothing to do and the others
// return net.ErrClosed. Idempotent.
//
// Frames that were in the fill ring are the program's again. Of frames in the TX ring it is not
// known whether they were sent; a zero-copy device may still be reading those for a moment.
func (s *Socket) Close() error {
	if s.fd < 0 {
		return nil
	}
	s.umem.forget(s)
	if err := s.release(); err != nil {
		return fmt.Errorf("close AF_XDP socket on queue %d of %s: %w", s.queue, s.name, err)
	}
	return nil
}

func (s *Socket) release() error {
	var errs []error
	for _, r := range s.rings() {
		errs = append(errs, r.destroy())
	}
	errs = append(errs, unix.Close(s.fd))
	s.fd = -1
	return errors.Join(errs...)
}

// interfaceName returns the name of a device in the thread's namespace, or "interface N".
func interfaceName(ifindex int) string {
	if ifi, err := net.InterfaceByIndex(ifindex); err == nil {
		return ifi.Name
	}
	return fmt.Sprintf("interface %d", ifindex)
}

func setsockopt(fd, level, opt int, p unsafe.Pointer, size uintptr) error {
	_, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt), uintptr(p), size, 0)
	if e != 0 {
		return e
	}
	return nil
}

// getsockopt fills all size bytes at p or fails.
func getsockopt(fd, level, opt int, p unsafe.Pointer, size uintptr) error {
	n := uint32(size)
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(opt), uintptr(p), uintptr(unsafe.Pointer(&n)), 0)
	if e != 0 {
		return e
	}
	if uintptr(n) != size {
		return fmt.Errorf("kernel returned %d bytes instead of %d: %w", n, size, ErrNotSupported)
	}
	return nil
}
