package pasteapi

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"github.com/pastenet/paste/bpf"
	"golang.org/x/sys/unix"
)

// conn is one registered connection. It belongs to its ring's goroutine.
type conn struct {
	fd          int
	cookie      uint64
	peer, local netip.AddrPort

	// Receiving, in the order in which the bytes passed through TCP.
	next        uint32 // sequence number of the next byte for the application
	synced      bool   // next is known
	items       []item // FIFO from first
	first       int
	active      bool   // in Ring.active
	eof         bool   // the close notice is queued
	copyOnly    bool   // deliveries were lost: read everything with recv
	cause       error  // why the connection ended; nil = FIN
	firstTicket uint16 // tickets in flight, oldest first
	lastTicket  uint16
	inflight    int
	merge       mergeKey    // where the next segment may be added
	held        []heldFrame // received but not injected while sending is stuck
	flow        bpf.Flow
	stopped     bool // nothing of it may pass the NIC queue

	// Sending.
	queue    []txItem // what the kernel has not taken yet
	queued   int      // bytes in queue
	batch    int32    // first slot of this connection in the current TxSync, -1 = none
	batchEnd int32
	failed   bool
	closing  bool // CloseAfterSend
}

// item is something that the application is to receive.
type item struct {
	kind  itemKind
	flags uint16 // data: of the slot
	off   uint16 // data: of the payload in the frame
	frame uint32 // data
	skip  uint32 // stray: bytes to throw away first, already received before
	len   uint32 // data, stray: bytes
}

type itemKind uint8

const (
	itemData  itemKind = iota // payload in a frame
	itemStray                 // payload that waits in the socket
	itemAll                   // everything that waits in the socket
	itemClose                 // close notice
)

// push queues an item. The close notice is the last.
func (r *Ring) push(c *conn, i item) {
	if c.closing || c.eof && i.kind != itemClose {
		if i.kind == itemData {
			r.giveFrame(i.frame)
		}
		return
	}
	if i.kind == itemStray && i.skip == 0 && len(c.items) > c.first {
		if last := &c.items[len(c.items)-1]; last.kind == itemStray {
			last.len += i.len
			return
		}
	}
	c.items = append(c.items, i)
}

func (c *conn) pending() bool { return c.first < len(c.items) }

func (c *conn) pop() {
	c.first++
	if c.first == len(c.items) {
		c.items, c.first = c.items[:0], 0
	}
}

// Register puts a connected TCP socket under the ring: from now on its bytes
// come as RX slots, those that wait in the socket included, and read(2) must
// not be used on it. The socket stays the caller's, who calls Unregister
// before closing it. It is made non-blocking and TCP_NODELAY (as upstream
// does).
//
// Errors: ErrNotSocket and ErrNotConnected, which is an ordinary event too, as
// the peer may have reset it; ErrRegistered, also when another ring has the
// socket; ErrTooManyConns; ErrNoBuffers when the pool has no frame for what waits
// in the socket; ErrClosed.
//
// A descriptor that was closed without Unregister counts as unregistered when
// its number comes again for another socket. Until then its connection counts
// among Options.MaxConns.
func (r *Ring) Register(fd int) error {
	if r.closed {
		return ErrClosed
	}
	if c := r.lookup(fd); c != nil {
		if !c.gone() {
			return fmt.Errorf("register fd %d: %w", fd, ErrRegistered)
		}
		if err := r.Unregister(fd); err != nil {
			return err
		}
	}
	if r.conns >= r.maxConns {
		return fmt.Errorf("register fd %d: %w: the limit is %d (Options.MaxConns)", fd, ErrTooManyConns, r.maxConns)
	}
	c, err := newConn(fd)
	if err != nil {
		return fmt.Errorf("register fd %d: %w", fd, err)
	}
	if r.byCookie[c.cookie] != nil {
		return fmt.Errorf("register fd %d: %w, by another descriptor", fd, ErrRegistered)
	}
	if err := r.adopt(c); err != nil {
		return fmt.Errorf("register fd %d: %w", fd, err)
	}
	return nil
}

// RegisterConn registers the socket under a net.Conn and returns its
// descriptor, by which slots name it. The connection must be kept open, and
// reachable, until Unregister.
func (r *Ring) RegisterConn(sc syscall.Conn) (fd int, err error) {
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("register connection: %w", err)
	}
	fd = -1
	ctlErr := raw.Control(func(p uintptr) {
		fd = int(p)
		err = r.Register(fd)
	})
	if ctlErr != nil {
		return -1, fmt.Errorf("register connection: %w", ctlErr)
	}
	return fd, err
}

func newConn(fd int) (*conn, error) {
	c := &conn{fd: fd, batch: -1}
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil || proto != unix.IPPROTO_TCP {
		if proto == unix.IPPROTO_MPTCP {
			return nil, fmt.Errorf("%w: it is multipath tcp (net.ListenConfig: SetMultipathTCP(false))", ErrNotSocket)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotSocket, os.NewSyscallError("getsockopt", err))
		}
		return nil, ErrNotSocket
	}
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotConnected, os.NewSyscallError("getpeername", err))
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return nil, os.NewSyscallError("getsockname", err)
	}
	if c.peer, err = addrPort(peer); err != nil {
		return nil, err
	}
	if c.local, err = addrPort(local); err != nil {
		return nil, err
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	c.cookie = cookie
	c.flow = c.flowEntry()
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return c, nil
}

// adopt brings a connection under the verdict.
func (r *Ring) adopt(c *conn) (err error) {
	// What waits in the socket is read first: then the verdict only ever sees
	// whole segments of which nothing was consumed.
	if err := r.drainSocket(c); err != nil {
		r.freeItems(c)
		return err
	}
	err = r.tk.AddSocket(c.cookie, c.fd)
	if errors.Is(err, unix.EOPNOTSUPP) && halfClosed(c.fd) {
		// The peer has finished already, which an ordinary client may do
		// before it is registered. All that it sent waits in the socket.
		c.copyOnly, err = true, nil
		r.push(c, item{kind: itemAll})
	}
	if err != nil {
		r.freeItems(c)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("%w: it is not in state ESTABLISHED", ErrNotConnected)
		}
		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("%w: another ring, or another program, has it in a sockmap", ErrRegistered)
		}
		return err
	}
	ev := unix.EpollEvent{Events: connEvents, Fd: int32(c.fd), Pad: watchConn}
	if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, c.fd, &ev); err != nil {
		r.freeItems(c)
		return errors.Join(os.NewSyscallError("epoll_ctl", err), r.tk.RemoveSocket(c.cookie))
	}
	for len(r.byFd) <= c.fd {
		r.byFd = append(r.byFd, nil)
	}
	r.byFd[c.fd] = c
	r.byCookie[c.cookie] = c
	r.flows.add(c)
	if r.steer != nil && !c.copyOnly {
		if err := r.steer.AddConn(c.peer, c.local); err != nil {
			r.stats.Unsteered++ // it works by the copy path
		}
	}
	r.conns++
	r.stats.Conns++
	// Segments that arrived between reading and inserting did not run the
	// verdict; a look at the socket makes it run over them.
	if !c.copyOnly {
		r.peek(c)
	}
	r.activate(c)
	return nil
}

// halfClosed says whether a socket is in state CLOSE_WAIT.
func halfClosed(fd int) bool {
	const closeWait = 8 // include/net/tcp_states.h, TCP_CLOSE_WAIT
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.State == closeWait
}

// connEvents are edge-triggered, and POLLIN is not among them: the verdict
// takes bytes away without telling poll.
const connEvents = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR | unix.EPOLLOUT | unix.EPOLLET

// drainSocket reads what waits in a socket that is not under the verdict yet.
// An end of stream or an error is left to be found again by the verdict's
// registration or by the first event.
func (r *Ring) drainSocket(c *conn) error {
	for {
		f, ok := r.takeFrame()
		if !ok {
			return ErrNoBuffers
		}
		n, errno := r.recv(c.fd, r.frame(f)[strayDoff:], 0)
		if errno != 0 || n <= 0 {
			r.giveFrame(f)
			return nil
		}
		r.push(c, item{kind: itemData, flags: NS_COPIED, frame: f, off: strayDoff, len: uint32(n)})
		r.stats.Stray++
		r.stats.StrayBytes += uint64(n)
	}
}

// gone says whether the socket was closed without Unregister: the descriptor is
// closed, or another socket's.
func (c *conn) gone() bool {
	cookie, err := unix.GetsockoptUint64(c.fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	return err != nil || cookie != c.cookie
}

func (r *Ring) lookup(fd int) *conn {
	if fd < 0 || fd >= len(r.byFd) {
		return nil
	}
	return r.byFd[fd]
}

// Unregister takes a connection from the ring. Slots that are already in the
// RX ring stay valid; bytes that were not given out yet, and replies that the
// kernel has not taken yet (see TxQueued), are dropped. Call it before
// close(2).
func (r *Ring) Unregister(fd int) error {
	if r.closed {
		return ErrClosed
	}
	return r.unregister(fd)
}

func (r *Ring) unregister(fd int) error {
	c := r.lookup(fd)
	if c == nil {
		return fmt.Errorf("unregister fd %d: %w", fd, ErrNotRegistered)
	}
	r.byFd[fd] = nil
	delete(r.byCookie, c.cookie)
	var err error
	if r.flows.remove(c) && r.steer != nil {
		err = r.steer.RemoveConn(c.peer, c.local)
	}
	r.conns--
	r.stats.Conns--
	err = errors.Join(err, r.tk.RemoveSocket(c.cookie))
	if c.copyOnly {
		err = errors.Join(err, r.tk.ClearOverflow(c.cookie))
	}
	if e := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_DEL, fd, nil); e != nil && e != unix.ENOENT && e != unix.EBADF && e != unix.EPERM {
		// Those say that the descriptor was closed, or is another one by now.
		err = errors.Join(err, os.NewSyscallError("epoll_ctl", e))
	}
	for slot := c.firstTicket; slot != none; {
		next := r.tickets.info[slot].next
		if r.tickets.reclaim(slot) {
			r.dropTicket(slot)
		} else {
			// Claimed: the delivery on its way frees it.
			r.tickets.unlink(c, slot)
			r.tickets.info[slot].conn = nil
		}
		slot = next
	}
	r.freeItems(c)
	r.freeHeld(c)
	r.freeQueue(c)
	c.fd = -1
	r.publish() // a ring that is busy to its end may not look any more
	if err != nil {
		return fmt.Errorf("unregister fd %d: %w", fd, err)
	}
	return nil
}

// CloseAfterSend unregisters a connection and closes its descriptor as soon as
// the kernel has taken everything in the TX slots written so far, which is at
// the next TxSync unless the peer reads too slowly. From now on nothing more is
// received from it and the descriptor is the ring's. Not for a descriptor that
// a net.Conn owns.
func (r *Ring) CloseAfterSend(fd int) error {
	if r.closed {
		return ErrClosed
	}
	c := r.lookup(fd)
	if c == nil {
		return fmt.Errorf("close fd %d: %w", fd, ErrNotRegistered)
	}
	if !c.closing {
		c.closing = true
		r.closing = append(r.closing, c)
		r.freeItems(c)
	}
	return nil
}

// closeSent closes the connections that have nothing left to send.
func (r *Ring) closeSent() error {
	var err error
	later := r.closing[:0]
	for _, c := range r.closing {
		switch {
		case c.fd < 0: // unregistered meanwhile
		case len(c.queue) > 0:
			later = append(later, c)
		default:
			fd := c.fd
			err = errors.Join(err, r.Unregister(fd), os.NewSyscallError("close", unix.Close(fd)))
			r.stats.Syscalls++
		}
	}
	clear(r.closing[len(later):])
	r.closing = later
	return err
}

// CloseCause tells, after a close notice, why a connection ended: nil for an
// orderly FIN, else an errno such as ECONNRESET, or ErrTxOverflow. EPROTO means
// that the delivery ring overflowed, a retransmission then repeated bytes, and
// the kernel had no memory to cut them off, so that none are given out.
func (r *Ring) CloseCause(fd int) error {
	if c := r.lookup(fd); c != nil {
		return c.cause
	}
	return ErrNotRegistered
}

// TxQueued is the number of bytes that were put into TX slots for a connection
// and that the kernel has not taken at the last TxSync, because the peer reads
// too slowly.
func (r *Ring) TxQueued(fd int) int {
	if c := r.lookup(fd); c != nil {
		return c.queued
	}
	return 0
}

// freeItems drops what was not given out.
func (r *Ring) freeItems(c *conn) {
	for _, i := range c.items[c.first:] {
		if i.kind == itemData {
			r.giveFrame(i.frame)
		}
	}
	c.items, c.first = c.items[:0], 0
}
