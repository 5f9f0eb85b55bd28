package pasteapi

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/internal/testwait"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// controlNetns moves the test into an empty network namespace: no other
// process claims anything there.
func controlNetns(t *testing.T) {
	t.Helper()
	netlabtest.Enter(t, netlabtest.NewNetns(t))
}

func TestClaimNIC(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	controlNetns(t)
	ctx := context.Background()

	_, err := QueryNIC(ctx, "at0")
	qt.Assert(t, qt.ErrorIs(err, os.ErrNotExist))

	var asked atomic.Int64
	c, err := claimNIC("at0", func() Status { return Status{PID: int(asked.Add(1))} })
	qt.Assert(t, qt.IsNil(err))
	other, err := claimNIC("at1", func() Status { return Status{NIC: "other"} })
	qt.Assert(t, qt.IsNil(err))

	for want := range 3 {
		got, err := QueryNIC(ctx, "at0")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(got.PID, want+1))
	}

	_, err = claimNIC("at0", nil)
	qt.Assert(t, qt.ErrorIs(err, ErrNICInUse))
	qt.Check(t, qt.StringContains(err.Error(), "at0"))
	qt.Check(t, qt.StringContains(err.Error(), strconv.Itoa(os.Getpid())))

	ports, err := ListPorts(ctx)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(ports, 2))
	qt.Check(t, qt.Equals(ports[0].NIC, "at0"))
	qt.Check(t, qt.Equals(ports[0].PID, os.Getpid()))
	qt.Check(t, qt.Equals(ports[1].NIC, "at1"))
	qt.Check(t, qt.Equals(ports[1].Status.NIC, "other"))

	qt.Assert(t, qt.IsNil(c.Close()))
	qt.Assert(t, qt.IsNil(c.Close()))
	again, err := claimNIC("at0", func() Status { return Status{} })
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(again.Close()))
	qt.Assert(t, qt.IsNil(other.Close()))

	ports, err = ListPorts(ctx)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(ports, 0))
}

// Who asks a port that is being closed is told that there is none.
func TestAskWhileClosed(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	controlNetns(t)
	asked, closing := make(chan struct{}, 1), make(chan struct{})
	c, err := claimNIC("at0", func() Status { asked <- struct{}{}; <-closing; return Status{} })
	qt.Assert(t, qt.IsNil(err))
	answers := make(chan error, 2)
	query := func() {
		netns, err := os.Open("/proc/thread-self/ns/net")
		qt.Assert(t, qt.IsNil(err))
		go func() {
			err := enter(netns)
			if err == nil {
				_, err = QueryNIC(context.Background(), "at0")
			}
			answers <- err
		}()
	}
	query()
	<-asked // and the next one waits
	query()
	testwait.Until(t, "both to have connected", func() bool {
		table, err := os.ReadFile("/proc/thread-self/net/unix")
		qt.Assert(t, qt.IsNil(err))
		return strings.Count(string(table), controlPrefix+"at0") == 3 // with the listener
	})
	c.mu.Lock()
	peer := c.peer
	c.mu.Unlock()
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	_, _ = peer.Read(make([]byte, 1)) // until Close has closed it
	close(closing)
	qt.Check(t, qt.IsNil(<-closed))
	for range 2 {
		qt.Check(t, qt.ErrorIs(<-answers, os.ErrNotExist))
	}
}

// The same name in another network namespace is another NIC.
func TestClaimNICPerNetns(t *testing.T) {
	controlNetns(t)
	c, err := claimNIC("at0", func() Status { return Status{} })
	qt.Assert(t, qt.IsNil(err))
	defer c.Close()
	netlabtest.In(t, netlabtest.NewNetns(t), func() {
		other, err := claimNIC("at0", func() Status { return Status{} })
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsNil(other.Close()))
	})
}

// A peer that connects and does not read must not keep Close waiting.
func TestControlCloseWithSilentPeer(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	controlNetns(t)
	asked := make(chan struct{}, 1)
	c, err := claimNIC("at0", func() Status {
		asked <- struct{}{}
		return Status{NIC: strings.Repeat("x", 8<<20)} // more than a socket buffer holds
	})
	qt.Assert(t, qt.IsNil(err))
	peer, err := dialPort(context.Background(), controlPrefix+"at0")
	qt.Assert(t, qt.IsNil(err))
	defer peer.Close()
	<-asked
	qt.Assert(t, qt.IsNil(c.Close()))
}

func TestQueryNICCancelled(t *testing.T) {
	controlNetns(t)
	release := make(chan struct{})
	asked := make(chan struct{})
	c, err := claimNIC("at0", func() Status { close(asked); <-release; return Status{} })
	qt.Assert(t, qt.IsNil(err))
	defer c.Close()
	defer close(release)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-asked; cancel() }()
	_, err = QueryNIC(ctx, "at0")
	qt.Assert(t, qt.ErrorIs(err, context.Canceled))
}

// A process of another user that took the address is not believed, but by root,
// who is told whose it is.
func TestQueryNICOfStranger(t *testing.T) {
	controlNetns(t)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(fd)
	// Only this thread becomes the stranger; listen records its credentials.
	_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0))
	qt.Assert(t, qt.Equals(errno, 0))
	err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: "@paste/at0"}), unix.Listen(fd, 8))
	_, _, errno = unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0))
	qt.Assert(t, qt.Equals(errno, 0))
	qt.Assert(t, qt.IsNil(err))

	as := func(uid uintptr) {
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uid, ^uintptr(0))
		qt.Assert(t, qt.Equals(errno, 0))
	}
	as(65533)
	_, err = QueryNIC(context.Background(), "at0")
	qt.Check(t, qt.ErrorIs(err, os.ErrPermission))
	ports, err := ListPorts(context.Background())
	qt.Check(t, qt.ErrorIs(err, os.ErrPermission))
	qt.Check(t, qt.HasLen(ports, 0))
	as(0)
	go func() {
		for {
			peer, _, err := unix.Accept(fd)
			if err != nil {
				return // shut down
			}
			_, _ = unix.SendmsgN(peer, []byte(`{"nic":"at0"}`), nil, nil, unix.MSG_NOSIGNAL) // to who asked first, nobody
			unix.Close(peer)
		}
	}()
	defer unix.Shutdown(fd, unix.SHUT_RDWR)
	ports, err = ListPorts(context.Background())
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(ports, 1))
	qt.Check(t, qt.Equals(ports[0].UID, 65534))
	_, err = claimNIC("at0", nil)
	qt.Assert(t, qt.ErrorIs(err, ErrNICInUse))
}
