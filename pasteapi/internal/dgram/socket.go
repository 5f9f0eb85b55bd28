package dgram

import (
	"errors"
	"fmt"
	"os"

	"github.com/pastenet/paste/pasteapi/internal/conns"
	"golang.org/x/sys/unix"
)

// queueLimit is how many datagrams wait for one socket that is full; more are dropped,
// as the kernel drops them where its own queues are.
const queueLimit = 512

// Socket is one registered UDP socket.
type Socket struct {
	conns.Conn
	v6        bool // of family AF_INET6, whatever it receives
	anyLocal  bool // bound to all addresses: each datagram says which one it came to
	connected bool

	ready  bool // it may have datagrams, and is among those that do
	errors bool // it may have errors to tell
	ended  bool // nothing more comes
	cause  error
	muted  bool // nobody wants what comes
	paused bool // nor at the moment

	merged     *merged // nil: the kernel merges none
	same, seen int     // datagrams like the one before, and all of them

	awaiting bool // the waiter tells of room

	slots []uint32 // of the TX ring, in the current batch
	queue []item   // that found the socket full
}

// item is a datagram that waits.
type item struct {
	frame     uint32
	doff, end uint16
}

// Cause is why the socket ended.
func (s *Socket) Cause() error { return s.cause }

// Queued is how many datagrams wait for room in the socket.
func (s *Socket) Queued() int { return len(s.queue) }

// QueuedBytes is how many bytes those have.
func (s *Socket) QueuedBytes() (n int) {
	for _, i := range s.queue {
		n += int(i.end - i.doff)
	}
	return n
}

// V6 says whether the headers of the socket are those of IPv6. One that receives both
// has IPv4 addresses inside of IPv6 ones.
func (s *Socket) V6() bool { return s.v6 }

// Open looks at a UDP socket that is bound or connected, makes it non-blocking, and
// has it tell errors and, where it is bound to all addresses, the one that each datagram
// was sent to. The descriptor stays the caller's.
func Open(fd int) (*Socket, error) {
	id, v6, err := conns.OpenDatagram(fd)
	if err != nil {
		return nil, err
	}
	s := &Socket{Conn: id, v6: v6, connected: id.Peer.IsValid(), anyLocal: id.Local.Addr().IsUnspecified()}
	type option struct{ level, name int }
	options := []option{{unix.IPPROTO_IP, unix.IP_RECVERR}}
	if s.anyLocal && !v6 {
		options = append(options, option{unix.IPPROTO_IP, unix.IP_PKTINFO})
	}
	if v6 {
		options = append(options, option{unix.IPPROTO_IPV6, unix.IPV6_RECVERR})
		if s.anyLocal {
			options = append(options, option{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO})
		}
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.name, 1); err != nil {
			return nil, fmt.Errorf("prepare udp socket: %w", os.NewSyscallError("setsockopt", err))
		}
	}
	return s, nil
}

// fatal says whether an error of a receive is one of the descriptor, and not of the
// network.
func fatal(errno unix.Errno) bool {
	return errors.Is(errno, unix.EBADF) || errno == unix.ENOTSOCK || errno == unix.EFAULT || errno == unix.EINVAL
}

// mmsghdr is struct mmsghdr (include/linux/socket.h).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}
