package tests

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/childproc"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/pasteapi"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A reply carries the ACK of its request, whichever way that came in: there is no
// segment that does nothing but acknowledge.
func TestReplyCarriesACK(t *testing.T) {
	for _, receive := range []string{"auto", "copied", "steered"} {
		for _, send := range []string{"plain", "io_uring"} {
			t.Run(receive+"/"+send, func(t *testing.T) {
				l := newLab(t, netlab.Config{})
				s := serve(t, l, poolFile(t), "--receive", receive, "--send", send)
				capture := fromServer(t, l)
				c := dial(t, l, s.addr)
				r := bufio.NewReader(c)
				exchange := func(n int) {
					for range n {
						_, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n%s", strings.Repeat("x", 1000))
						qt.Assert(t, qt.IsNil(err))
						resp, err := http.ReadResponse(r, nil)
						qt.Assert(t, qt.IsNil(err))
						_, err = io.Copy(io.Discard, resp.Body)
						qt.Assert(t, qt.IsNil(err))
					}
				}
				exchange(50) // TCP acknowledges the first segments of a connection at once
				count(t, capture)
				const requests = 200
				exchange(requests)
				replies, acks := count(t, capture)
				qt.Check(t, qt.Equals(replies, requests))
				// A server that is kept from its CPU for 40 ms acknowledges first.
				qt.Check(t, qt.IsTrue(acks <= requests/4), qt.Commentf("%d segments do nothing but acknowledge", acks))
			})
		}
	}
}

// fromServer captures what the server's end of the veth pair sends.
func fromServer(t *testing.T, l *netlab.Lab) (fd int) {
	t.Helper()
	qt.Assert(t, qt.IsNil(l.InClient(func() (err error) {
		nic, err := netlink.LinkByName(l.ClientDev)
		if err != nil {
			return err
		}
		const ip = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, ip)
		if err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ip, Ifindex: nic.Attrs().Index})
	})))
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// count counts the captured segments with payload, and those that only acknowledge.
func count(t *testing.T, capture int) (payload, acks int) {
	t.Helper()
	for buf := make([]byte, 1<<16); ; {
		n, _, err := unix.Recvfrom(capture, buf, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return payload, acks
		}
		if err == unix.EINTR {
			continue
		}
		qt.Assert(t, qt.IsNil(err))
		p := buf[:n]
		if p[9] != unix.IPPROTO_TCP {
			continue
		}
		ipHeader := int(p[0]&15) * 4
		tcp := p[ipHeader:binary.BigEndian.Uint16(p[2:])]
		if len(tcp) > int(tcp[12]>>4)*4 {
			payload++
		} else if tcp[13] == ack {
			acks++
		}
	}
}

// withoutURing as the first argument has the test program become what follows, where
// io_uring's system calls are refused as a container's seccomp profile refuses them.
const withoutURing = "without-io_uring"

func runWithoutURing(args []string) error {
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{
		{Code: load}, // the number of the system call
		{Code: equal, Jt: 3, K: unix.SYS_IO_URING_SETUP},
		{Code: equal, Jt: 2, K: unix.SYS_IO_URING_ENTER},
		{Code: equal, Jt: 1, K: unix.SYS_IO_URING_REGISTER},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread() // a filter is the thread's, and stays with it in Exec
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_SECCOMP", err)
	}
	return unix.Exec(args[0], args, os.Environ())
}

// Where io_uring is switched off everything works by plain system calls, and the log
// says so once.
func TestWithoutIOUring(t *testing.T) {
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	out, err := newLocal(self, withoutURing, pastectl, "version").CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	qt.Check(t, qt.StringContains(string(out), ": supported"))

	l := newLab(t, netlab.Config{})
	pool := poolFile(t)
	args := []string{withoutURing, pastectl, "serve", "http", "--json", "--nic", l.ServerDev, "--receive", "steered", "--copybreak", "-1",
		"--listen", l.ServerIP4.String() + ":8080", "--pool", pool, "--pool-size", "64MiB"}
	refused, err := l.ServerCommand(context.Background(), self, append(args, "--send", "io_uring")...).CombinedOutput()
	qt.Check(t, qt.IsNotNil(err))
	qt.Check(t, qt.Matches(string(refused), `(?s)pastectl: serve http: open ring 0: create io_uring: io_uring is not available: .*seccomp profile.*`))

	p, err := childproc.Start(l.ServerCommand(context.Background(), self, args...))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(p.Kill)
	s := &server{Process: p, t: t, pool: pool}
	qt.Assert(t, qt.IsNil(s.wait()))
	send := s.ready.Port.Send
	qt.Check(t, qt.Equals(send.Mode, pasteapi.SendAuto))
	qt.Check(t, qt.Equals(send.Used, pasteapi.SendPlain))
	qt.Check(t, qt.Matches(send.Why, "io_uring is not available: .*"))

	// In segments that are merged. On a busy machine not all of one body is steered.
	steersAgain(t, l, s)
	c := newClient(t, l)
	body := random(2<<20, 1)
	seq, err := post(c, s.url, body)
	qt.Assert(t, qt.IsNil(err))
	parallel(t, 50, func(int) error { return errors.Join(get(c, s.url), get(c, s.url)) })
	stats := s.stop().Port.Stats
	qt.Check(t, qt.IsTrue(stats.Merged > 0 && stats.SteeredBytes > 1<<20), qt.Commentf("%+v", stats))
	qt.Check(t, qt.Equals(stats.TxBatches, 0))
	qt.Check(t, qt.Equals(readLog(t, pool)[seq], sum(body)))
	qt.Check(t, qt.Equals(strings.Count(s.Said(), "level="), 1), qt.Commentf("%s", s.Said()))
}
