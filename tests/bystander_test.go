package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"golang.org/x/sys/unix"
)

// bystanders talk over the NIC and have nothing to do with the rings: a TCP
// connection that lives long, UDP, and ping. Each exchange is counted.
type bystanders struct {
	stop            atomic.Bool
	tcp, udp, pings atomic.Int64
	failed          chan error
	ended           int
}

func startBystanders(t *testing.T, l *netlab.Lab) *bystanders {
	t.Helper()
	b := &bystanders{failed: make(chan error, 3)}
	ln, err := l.Server.Listen(t.Context(), "tcp", net.JoinHostPort(l.ServerIP4.String(), "2222"))
	qt.Assert(t, qt.IsNil(err))
	go func() {
		defer ln.Close()
		if c, err := ln.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	var server, client net.PacketConn
	qt.Assert(t, qt.IsNil(l.InServer(func() (err error) {
		server, err = net.ListenPacket("udp", net.JoinHostPort(l.ServerIP4.String(), "5353"))
		return err
	})))
	qt.Assert(t, qt.IsNil(l.InClient(func() (err error) {
		client, err = net.ListenPacket("udp", net.JoinHostPort(l.ClientIP4.String(), "0"))
		return err
	})))
	go func() {
		var buf [2048]byte
		for {
			n, from, err := server.ReadFrom(buf[:])
			if err != nil {
				return
			}
			_, _ = server.WriteTo(buf[:n], from)
		}
	}()
	c, err := tryDial(l, ln.Addr().String())
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(c.SetDeadline(time.Time{})))
	var ping int
	qt.Assert(t, qt.IsNil(l.InClient(func() (err error) {
		ping, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		return err
	})))
	go func() { defer c.Close(); b.failed <- b.talk(c) }()
	go func() {
		defer server.Close()
		defer client.Close()
		b.failed <- b.datagrams(client, server.LocalAddr())
	}()
	go func() { defer unix.Close(ping); b.failed <- b.ping(ping, l.ServerIP4.As4()) }()
	t.Cleanup(func() { b.end(t) })
	return b
}

func (b *bystanders) end(t *testing.T) {
	t.Helper()
	b.stop.Store(true)
	for ; b.ended < 3; b.ended++ {
		qt.Check(t, qt.IsNil(<-b.failed))
	}
}

// onward waits until each of them has had some exchanges more.
func (b *bystanders) onward(t *testing.T) {
	t.Helper()
	tcp, udp, pings := b.tcp.Load(), b.udp.Load(), b.pings.Load()
	waitFor(t, func() bool {
		return b.tcp.Load() > tcp+20 && b.udp.Load() > udp+20 && b.pings.Load() > pings+20
	})
}

// talk is like ssh: now a keystroke, now a screenful, each awaited.
func (b *bystanders) talk(c *net.TCPConn) error {
	rng := rand.New(rand.NewSource(1))
	for !b.stop.Load() {
		data := random(1+rng.Intn(1<<uint(rng.Intn(15))), rng.Int63())
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := c.Write(data); err != nil {
			return fmt.Errorf("bystander on TCP: %w", err)
		}
		got := make([]byte, len(data))
		if _, err := io.ReadFull(c, got); err != nil {
			return fmt.Errorf("bystander on TCP: %w", err)
		}
		if string(got) != string(data) {
			return errors.New("bystander on TCP: other bytes came back")
		}
		b.tcp.Add(1)
		time.Sleep(time.Millisecond)
	}
	return nil
}

// again is how long an answer is waited for before the question is asked once more: a
// burst that the receiver's CPU has no time for overflows the NIC's queue, whoever serves.
const again = time.Second

func (b *bystanders) datagrams(c net.PacketConn, to net.Addr) error {
	for n := uint64(1); !b.stop.Load(); n++ {
		for end := time.Now().Add(patience); ; {
			err := echoed(c, to, n)
			if err == nil {
				break
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(end) {
				return fmt.Errorf("bystander on UDP: datagram %d: %w", n, err)
			}
		}
		b.udp.Add(1)
		time.Sleep(time.Millisecond)
	}
	return nil
}

// echoed sends a datagram and waits until it is back. Late answers to earlier ones, which
// were sent again, are passed over.
func echoed(c net.PacketConn, to net.Addr, n uint64) error {
	msg := binary.BigEndian.AppendUint64(nil, n)
	if _, err := c.WriteTo(msg, to); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(again)); err != nil {
		return err
	}
	for {
		var got [16]byte
		k, _, err := c.ReadFrom(got[:])
		if err != nil {
			return err
		}
		if k != len(msg) || binary.BigEndian.Uint64(got[:]) > n {
			return fmt.Errorf("%x came back", got[:k])
		}
		if binary.BigEndian.Uint64(got[:]) == n {
			return nil
		}
	}
}

func (b *bystanders) ping(fd int, to [4]byte) error {
	tv := unix.NsecToTimeval(int64(again))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return err
	}
	for n := uint16(1); !b.stop.Load(); n++ {
		for end := time.Now().Add(patience); ; {
			answered, err := pinged(fd, to, n)
			if answered {
				break
			}
			if err != unix.EAGAIN || time.Now().After(end) {
				return fmt.Errorf("bystander's ping %d: %w", n, err)
			}
		}
		b.pings.Add(1)
		time.Sleep(time.Millisecond)
	}
	return nil
}

// pinged sends an echo request, and waits for its answer as long as the socket does.
func pinged(fd int, to [4]byte, n uint16) (answered bool, err error) {
	// Type 8, code 0, checksum, identifier, sequence (RFC 792).
	msg := []byte{8, 0, 0, 0, 't', 'e', 0, 0}
	binary.BigEndian.PutUint16(msg[6:], n)
	binary.BigEndian.PutUint16(msg[2:], ^checksum(0, msg))
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrInet4{Addr: to}); err != nil {
		return false, err
	}
	for {
		var got [256]byte
		k, _, err := unix.Recvfrom(fd, got[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false, err
		}
		if k >= 28 && got[20] == 0 && binary.BigEndian.Uint16(got[26:]) == n {
			return true, nil
		}
	}
}

// checksum is the ones'-complement sum of RFC 1071, of b after sum.
func checksum(sum uint32, b []byte) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// Nobody else on the NIC notices anything: attaching, serving, a crash under
// load, serving again, detaching.
func TestBystanders(t *testing.T) {
	l := newLab(t, netlab.Config{})
	b := startBystanders(t, l)
	b.onward(t)
	steps := func(args ...string) {
		t.Helper()
		_, stderr, err := ctl(l, args...)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
		b.onward(t)
	}
	usePrivateBPFFS(t)
	pool := poolFile(t)
	client := newClient(t, l)
	load := func(s *server) {
		t.Helper()
		parallel(t, 8, func(i int) error {
			_, err := post(client, s.url, random(500_000, int64(i)))
			return err
		})
		b.onward(t)
	}
	for _, attached := range []bool{true, false} {
		if attached {
			steps("attach", l.ServerDev)
		}
		for range 2 {
			s := serve(t, l, pool, "--on-full", "wrap")
			load(s)
			s.Kill()
			client.CloseIdleConnections()
			b.onward(t)
		}
		s := serve(t, l, pool, "--on-full", "wrap")
		load(s)
		s.stop()
		client.CloseIdleConnections()
		b.onward(t)
		if attached {
			steps("detach", l.ServerDev)
		}
	}
	b.end(t)
	t.Logf("%d exchanges over TCP, %d over UDP, %d pings", b.tcp.Load(), b.udp.Load(), b.pings.Load())
}
