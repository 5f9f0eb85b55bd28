package bpf

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// talk keeps a TCP connection across the pair busy: the far end sends numbers,
// the near end sends them back.
type talk struct {
	round chan uint32 // the newest number that came back
	stop  atomic.Bool
	err   chan error
	close func()

	peer, local netip.AddrPort // of the near end's socket
}

func startTalk(t *testing.T, p *pair, port int) *talk {
	t.Helper()
	addr := net.JoinHostPort(p.nearAddr, strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	qt.Assert(t, qt.IsNil(err))
	defer l.Close()
	var client net.Conn
	p.inFar(t, func() { client, err = net.DialTimeout("tcp", addr, 3*time.Minute) })
	qt.Assert(t, qt.IsNil(err))
	server, err := l.Accept()
	qt.Assert(t, qt.IsNil(err))

	k := &talk{round: make(chan uint32, 1), err: make(chan error, 2)}
	k.peer, k.local = server.RemoteAddr().(*net.TCPAddr).AddrPort(), server.LocalAddr().(*net.TCPAddr).AddrPort()
	deadline := time.Now().Add(3 * time.Minute)
	client.SetDeadline(deadline)
	server.SetDeadline(deadline)
	k.close = func() { client.Close(); server.Close() }
	go func() {
		_, err := io.Copy(server, server)
		server.Close()
		k.err <- err
	}()
	go func() { k.err <- k.send(client) }()
	return k
}

func (k *talk) send(client net.Conn) error {
	defer client.Close()
	// More than a segment, so that GSO and several segments are in it.
	out, in := make([]byte, 5000), make([]byte, 5000)
	for n := uint32(1); !k.stop.Load(); n++ {
		binary.BigEndian.PutUint32(out[len(out)-4:], n)
		if _, err := client.Write(out); err != nil {
			return err
		}
		if _, err := io.ReadFull(client, in); err != nil {
			return err
		}
		if got := binary.BigEndian.Uint32(in[len(in)-4:]); got != n {
			return fmt.Errorf("sent %d, received %d", n, got)
		}
		select {
		case <-k.round:
		default:
		}
		k.round <- n
	}
	return nil
}

// progress waits for two rounds that began after the call.
func (k *talk) progress(t *testing.T) {
	t.Helper()
	first := <-k.round
	for {
		select {
		case n := <-k.round:
			if n >= first+3 {
				return
			}
		case err := <-k.err:
			t.Fatalf("the connection broke: %v", err)
		}
	}
}

func (k *talk) finish(t *testing.T) {
	t.Helper()
	k.stop.Store(true)
	qt.Check(t, qt.IsNil(<-k.err))
	qt.Check(t, qt.IsNil(<-k.err))
}

// TestTrafficPasses holds two connections while everything happens around
// them: to a port that is never steered, and to one that is, but for which no
// AF_XDP socket exists, as after the crash of an application.
func TestTrafficPasses(t *testing.T) {
	p, dir := newPair(t), bpffsDir(t)
	const bystander, steered = 2222, 8080
	a, b := startTalk(t, p, bystander), startTalk(t, p, steered)
	t.Cleanup(a.close)
	t.Cleanup(b.close)
	both := func() {
		t.Helper()
		a.progress(t)
		b.progress(t)
	}
	both()
	for _, mode := range []XDPMode{ModeNative, ModeGeneric} {
		for _, pin := range []bool{false, true} {
			s, err := AttachSteer(t.Context(), SteerOptions{NIC: p.nic, Mode: mode, Pin: pin, BPFFS: dir})
			qt.Assert(t, qt.IsNil(err))
			both()
			qt.Assert(t, qt.IsNil(s.Configure(FrameRoom(2048), 1)))
			qt.Assert(t, qt.IsNil(s.AddPort(steered, 0)))
			qt.Assert(t, qt.IsNil(s.AddConn(b.peer, b.local, 0, 0)))
			both()
			counters, err := s.Counters()
			qt.Assert(t, qt.IsNil(err))
			// What generic mode sees of a veth was never cut into frames.
			counters["pass_no_socket"] += counters["pass_large"]
			for _, name := range []string{"pass_port", "pass_control", "pass_no_socket"} {
				qt.Check(t, qt.Not(qt.Equals(counters[name], 0)), qt.Commentf("%s %s", mode, name))
			}
			qt.Check(t, qt.Equals(counters["redirect"], 0))
			qt.Check(t, qt.Equals(counters["pass_malformed"], 0))
			if pin {
				qt.Assert(t, qt.IsNil(DetachSteer(t.Context(), dir, p.nic)))
			}
			qt.Assert(t, qt.IsNil(s.Close()))
			qt.Assert(t, qt.Equals(p.xdp(t), 0))
			both()
		}
	}
	a.finish(t)
	b.finish(t)
}
