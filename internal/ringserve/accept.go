package ringserve

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/tcplisten"
	"github.com/pastenet/paste/pasteapi"
)

// acceptBurst bounds the connections accepted per batch: a flood of them must
// not starve those that are open.
const acceptBurst = 64

// Acceptor takes connections from a listening socket and registers them to a ring.
// The fields with capital letters are set before Watch.
type Acceptor struct {
	Fd   int
	Ring Ring
	Life *Life
	*Notes
	// Open is how many connections there are, which the owner counts, Limit how many
	// at most. Welcome is told of each new one.
	Open, Limit int
	Welcome     func(fd int, peer unix.Sockaddr)
	// Busy is what a client is told that is refused; nil closes it without a word.
	Busy               []byte
	Accepted, Rejected *uint64

	watched  bool
	spare    int // descriptor kept to be able to refuse a connection when there is no other
	hasSpare bool
}

// Watch has the ring tell of connections that wait.
func (a *Acceptor) Watch() error {
	if err := a.Ring.Watch(a.Fd); err != nil {
		return fmt.Errorf("watch listening socket: %w", err)
	}
	a.watched = true
	a.openSpare()
	return nil
}

// Unwatch ends Watch. It may be called again.
func (a *Acceptor) Unwatch() {
	if a.watched {
		a.watched = false
		if err := a.Ring.Unwatch(a.Fd); err != nil {
			a.Log.Warn("unwatch listening socket", "err", err)
		}
	}
}

// Close gives up what Watch has made. The socket is the caller's.
func (a *Acceptor) Close() {
	a.Unwatch()
	a.closeSpare()
}

// Accept takes new connections. It runs when neither ring names a descriptor that
// was closed.
func (a *Acceptor) Accept() { a.take(acceptBurst) }

// Drain takes the connections that are waiting to be accepted, and no others.
func (a *Acceptor) Drain() {
	a.take(tcplisten.Backlog)
	a.Unwatch()
	// It refuses from now on, also where several rings share the socket. It can
	// only fail for a socket that does not listen any more.
	_ = unix.Shutdown(a.Fd, unix.SHUT_RD)
}

func (a *Acceptor) take(most int) {
	for range most {
		if !a.takeOne() {
			return
		}
	}
}

// takeOne reports whether there may be more.
func (a *Acceptor) takeOne() bool {
	fd, peer, err := unix.Accept4(a.Fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	switch err {
	case nil:
		a.register(fd, peer)
	case unix.EAGAIN:
		return false
	case unix.EMFILE, unix.ENFILE:
		return a.refuseWithSpare()
	case unix.EINTR, unix.ECONNABORTED:
	case unix.EINVAL:
		if a.Life.In(Draining) {
			return false // another ring has shut it down
		}
		fallthrough
	default:
		// accept(2): pending network errors of the new socket show here.
		a.Warn("accept", "err", os.NewSyscallError("accept4", err))
		return false
	}
	return true
}

func (a *Acceptor) register(fd int, peer unix.Sockaddr) {
	*a.Accepted++
	if a.Open >= a.Limit {
		a.refuse(fd, "too many connections")
		return
	}
	switch err := a.Ring.Register(fd); {
	case err == nil:
		a.Welcome(fd, peer)
	case errors.Is(err, pasteapi.ErrNotConnected):
		unix.Close(fd) // it was reset before it was accepted
	case errors.Is(err, pasteapi.ErrTooManyConns), errors.Is(err, pasteapi.ErrNoBuffers):
		a.refuse(fd, err.Error())
	default:
		a.Warn("register connection", "err", err)
		unix.Close(fd)
	}
}

// refuse says why and closes. What the client has sent, if it is there already, is
// read first: closing over unread input sends RST, which can overtake the answer.
func (a *Acceptor) refuse(fd int, why string) {
	*a.Rejected++
	a.Warn("connection refused", "why", why, "open", a.Open, "limit", a.Limit)
	defer unix.Close(fd)
	if a.Busy == nil {
		return
	}
	unix.Write(fd, a.Busy)
	unix.Shutdown(fd, unix.SHUT_WR)
	var sink [4096]byte
	for range 4 {
		if n, err := unix.Read(fd, sink[:]); n <= 0 || err != nil {
			break
		}
	}
}

func (a *Acceptor) openSpare() {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	a.spare, a.hasSpare = fd, err == nil
}

func (a *Acceptor) closeSpare() (had bool) {
	if had = a.hasSpare; had {
		unix.Close(a.spare)
		a.hasSpare = false
	}
	return had
}

// refuseWithSpare takes one connection off the queue with a descriptor that
// was kept for it. Left in the queue, it would make every Poll return at once.
func (a *Acceptor) refuseWithSpare() bool {
	if !a.closeSpare() {
		return false
	}
	fd, _, err := unix.Accept4(a.Fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err == nil {
		a.refuse(fd, "out of file descriptors: raise the limit (ulimit -n)")
	}
	a.openSpare()
	return err == nil
}
