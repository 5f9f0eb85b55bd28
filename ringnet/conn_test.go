package ringnet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/internal/tlsring/tlstest"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/ringnet"
	"golang.org/x/sys/unix"
)

// opError looks whether an error is as one of package net's.
func opError(t *testing.T, err error, op string, is error) {
	t.Helper()
	var e *net.OpError
	qt.Assert(t, qt.ErrorAs(err, &e))
	qt.Check(t, qt.Equals(e.Op, op))
	qt.Check(t, qt.Equals(e.Net, "tcp"))
	qt.Check(t, qt.ErrorIs(err, is))
}

// TestEnds: half-closed, closed and reset connections end as those of package net do.
func TestEnds(t *testing.T) {
	n := open(t, pasteapi.Options{})
	l := listen(t, n)
	var b [10]byte

	c, peer := pair(t, l)
	_, err := io.WriteString(peer, "last words")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(peer.CloseWrite()))
	got, err := io.ReadAll(c)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(got), "last words"))
	_, err = io.WriteString(c, "an answer")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(c.CloseWrite()))
	got, err = io.ReadAll(peer)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(got), "an answer"))
	_, err = c.Write(b[:])
	opError(t, err, "write", syscall.EPIPE)
	qt.Check(t, qt.IsNil(c.Close()))
	opError(t, c.Close(), "close", net.ErrClosed)
	_, err = c.Read(b[:])
	opError(t, err, "read", net.ErrClosed)
	_, err = c.Write(b[:])
	opError(t, err, "write", net.ErrClosed)
	opError(t, c.SetDeadline(time.Now()), "set", net.ErrClosed)
	_, err = c.SyscallConn()
	opError(t, err, "raw", net.ErrClosed)

	c, peer = pair(t, l)
	qt.Assert(t, qt.IsNil(peer.SetLinger(0)))
	qt.Assert(t, qt.IsNil(peer.Close()))
	_, err = c.Read(b[:])
	opError(t, err, "read", syscall.ECONNRESET)

	c, peer = pair(t, l)
	qt.Assert(t, qt.IsNil(c.SetLinger(0)))
	qt.Assert(t, qt.IsNil(c.Close()))
	_, err = peer.Read(b[:])
	opError(t, err, "read", syscall.ECONNRESET)

	c, peer = pair(t, l)
	_, err = io.WriteString(peer, "never read")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(c.CloseRead()))
	_, err = c.Read(b[:])
	qt.Check(t, qt.Equals(err, io.EOF))
	_, err = io.WriteString(c, "still open")
	qt.Assert(t, qt.IsNil(err))
	_, err = io.ReadFull(peer, b[:])
	qt.Check(t, qt.IsNil(err))
}

// TestOptions: options reach the socket.
func TestOptions(t *testing.T) {
	n := open(t, pasteapi.Options{})
	c, peer := pair(t, listen(t, n))
	qt.Check(t, qt.Equals(c.RemoteAddr().String(), peer.LocalAddr().String()))
	qt.Check(t, qt.Equals(c.LocalAddr().String(), peer.RemoteAddr().String()))
	qt.Assert(t, qt.IsNil(errors.Join(c.SetNoDelay(false), c.SetKeepAlive(true), c.SetKeepAlivePeriod(90*time.Second),
		c.SetReadBuffer(100_000), c.SetWriteBuffer(50_000))))
	raw, err := c.SyscallConn()
	qt.Assert(t, qt.IsNil(err))
	for _, o := range []struct{ level, option, want int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 0}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 90},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 90}, {unix.SOL_SOCKET, unix.SO_RCVBUF, 200_000}, {unix.SOL_SOCKET, unix.SO_SNDBUF, 100_000},
	} {
		got := -1
		qt.Assert(t, qt.IsNil(raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), o.level, o.option) })))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got, o.want), qt.Commentf("option %d", o.option))
	}
	qt.Check(t, qt.ErrorIs(raw.Read(func(uintptr) bool { return true }), errors.ErrUnsupported))
	sent := false
	qt.Check(t, qt.IsNil(raw.Write(func(fd uintptr) bool { sent = true; _, err = unix.Write(int(fd), []byte("raw")); return true })))
	qt.Check(t, qt.IsTrue(sent && err == nil))
	var b [3]byte
	_, err = io.ReadFull(peer, b[:])
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(b[:]), "raw"))
}

// TestSegments: what arrives can be kept in a log without a copy of ours, piece by piece.
func TestSegments(t *testing.T) {
	pool, err := pmem.NewMemory("ringnet-log", pmem.Options{Size: 32 << 20})
	qt.Assert(t, qt.IsNil(err))
	port, err := pasteapi.Open(context.Background(), pasteapi.Options{Pool: pool})
	qt.Assert(t, qt.IsNil(err))
	n, err := ringnet.New(port, pool, nil)
	qt.Assert(t, qt.IsNil(err))
	l, err := n.Listen(context.Background(), "tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	c, peer := pair(t, l)
	sent := pattern(3_000_000)
	go func() {
		for rest := sent; len(rest) > 0; rest = rest[min(len(rest), 700):] {
			_, _ = peer.Write(rest[:min(len(rest), 700)]) // what fails shows below
		}
		peer.CloseWrite()
	}()
	for {
		seg, err := c.ReadSegment()
		if err == io.EOF {
			break
		}
		qt.Assert(t, qt.IsNil(err))
		_, err = pool.Log().Append([]pmem.Fragment{seg.Fragment()}, true)
		qt.Assert(t, qt.IsNil(err))
		seg.Release()
	}
	qt.Assert(t, qt.IsNil(pool.Log().Commit()))
	var got bytes.Buffer
	for r, err := range pool.Log().Records() {
		qt.Assert(t, qt.IsNil(err))
		_, err = r.WriteTo(&got)
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Check(t, qt.Equals(bytes.Equal(got.Bytes(), sent), true), qt.Commentf("%d bytes", got.Len()))
	qt.Check(t, qt.IsNil(n.Close()))
	qt.Check(t, qt.IsNil(port.Close()))
	qt.Check(t, qt.IsNil(pool.Close()))
}

// TestCopying: io.Copy from and to a connection, and a file that is sent by the kernel.
func TestCopying(t *testing.T) {
	n := open(t, pasteapi.Options{})
	c, peer := pair(t, listen(t, n))
	sent := pattern(5_000_000)
	name := filepath.Join(t.TempDir(), "file")
	qt.Assert(t, qt.IsNil(os.WriteFile(name, sent, 0o600)))
	f, err := os.Open(name)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	done := make(chan error, 1)
	go func() {
		_, err1 := io.CopyN(c, f, 1_000_000) // a part of it
		_, err2 := io.Copy(c, f)
		_, err3 := io.Copy(c, bytes.NewReader(sent))
		done <- errors.Join(err1, err2, err3, c.CloseWrite())
	}()
	got, err := io.ReadAll(peer)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(testwait.Receive(t, "the sender", done)))
	qt.Check(t, qt.Equals(bytes.Equal(got, append(sent[:len(sent):len(sent)], sent...)), true), qt.Commentf("%d bytes", len(got)))

	go func() {
		_, err := peer.Write(sent)
		done <- errors.Join(err, peer.CloseWrite())
	}()
	var back bytes.Buffer
	k, err := io.Copy(&back, c)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(testwait.Receive(t, "the sender", done)))
	qt.Check(t, qt.Equals(k, int64(len(sent))))
	qt.Check(t, qt.Equals(bytes.Equal(back.Bytes(), sent), true))
}

// TestListener: deadlines, what Close does to those who wait and to the address, and
// connections that nobody accepted.
func TestListener(t *testing.T) {
	n := open(t, pasteapi.Options{Rings: 2})
	l := listen(t, n)
	qt.Assert(t, qt.IsNil(l.SetDeadline(time.Now().Add(-time.Second))))
	_, err := l.Accept()
	opError(t, err, "accept", os.ErrDeadlineExceeded)
	qt.Assert(t, qt.IsNil(l.SetDeadline(time.Time{})))
	accepted := make(chan error, 1)
	go func() { _, err := l.Accept(); accepted <- err }()
	qt.Assert(t, qt.IsNil(l.SetDeadline(time.Now().Add(50*time.Millisecond))))
	opError(t, testwait.Receive(t, "Accept", accepted), "accept", os.ErrDeadlineExceeded)
	qt.Assert(t, qt.IsNil(l.SetDeadline(time.Time{})))

	_, err = n.Listen(context.Background(), "tcp", l.Addr().String())
	opError(t, err, "listen", syscall.EADDRINUSE)
	_, err = n.Listen(context.Background(), "udp", "127.0.0.1:0")
	qt.Check(t, qt.ErrorMatches(err, ".*unknown network udp"))

	waiting, err := net.Dial("tcp", l.Addr().String())
	qt.Assert(t, qt.IsNil(err))
	defer waiting.Close()
	qt.Assert(t, qt.IsNil(l.Close()))
	opError(t, l.Close(), "close", net.ErrClosed)
	_, err = l.Accept()
	opError(t, err, "accept", net.ErrClosed)
	_, err = waiting.Read(make([]byte, 1))
	qt.Check(t, qt.IsNotNil(err))
	again, err := n.Listen(context.Background(), "tcp", l.Addr().String())
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(again.Close()))
}

// TestClose: closing the Net ends what waits; a Net that Listen has made ends with the
// last of its connections.
func TestClose(t *testing.T) {
	n, err := ringnet.Open(context.Background(), pasteapi.Options{Rings: 2})
	qt.Assert(t, qt.IsNil(err))
	l, err := n.Listen(context.Background(), "tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	c, _ := pair(t, l)
	done := make(chan error, 2)
	go func() { _, err := c.Read(make([]byte, 1)); done <- err }()
	go func() { _, err := l.Accept(); done <- err }()
	qt.Assert(t, qt.IsNil(n.Close()))
	for range 2 {
		qt.Check(t, qt.ErrorIs(testwait.Receive(t, "who waits", done), net.ErrClosed))
	}
	_, err = n.Dial("tcp", "127.0.0.1:1")
	qt.Check(t, qt.IsNotNil(err))

	alone, err := ringnet.Listen(context.Background(), "tcp", "127.0.0.1:0", pasteapi.Options{})
	qt.Assert(t, qt.IsNil(err))
	c, peer := pair(t, alone)
	qt.Assert(t, qt.IsNil(alone.Close()))
	ping(t, c, peer)
	qt.Assert(t, qt.IsNil(c.Close()))
	testwait.Until(t, "the network is closed", func() bool {
		l, err := alone.Net().Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err == nil {
			l.Close()
		}
		return errors.Is(err, net.ErrClosed)
	})
	qt.Check(t, qt.IsNil(alone.Net().Close()))
}

// TestHTTP: net/http's own server and client on both ends, over TLS with HTTP/2, with a
// request that is cancelled, and a shutdown.
func TestHTTP(t *testing.T) {
	n := open(t, pasteapi.Options{})
	begun, cancelled := make(chan struct{}, 1), make(chan struct{}, 1)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			begun <- struct{}{}
			<-r.Context().Done()
			cancelled <- struct{}{}
			return
		}
		_, _ = io.Copy(w, r.Body) // the client sees it
	})
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		srv := &httptest.Server{Listener: listen(t, n), Config: &http.Server{Handler: h}, EnableHTTP2: proto == "HTTP/2.0"}
		srv.TLS = tlstest.Server("h2", "http/1.1")
		srv.StartTLS()
		tr := &http.Transport{DialContext: n.DialContext, TLSClientConfig: tlstest.Client(), ForceAttemptHTTP2: proto == "HTTP/2.0"}
		c := &http.Client{Transport: tr}
		body := strings.Repeat("a longer body, ", 100_000)
		resp, err := c.Post(srv.URL, "", strings.NewReader(body))
		qt.Assert(t, qt.IsNil(err))
		got, err := io.ReadAll(resp.Body)
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		qt.Check(t, qt.Equals(resp.Proto, proto))
		qt.Check(t, qt.Equals(string(got) == body, true))
		ctx, cancel := context.WithCancel(context.Background())
		req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/wait", nil)
		qt.Assert(t, qt.IsNil(err))
		go func() {
			<-begun
			cancel()
		}()
		_, err = c.Do(req)
		qt.Check(t, qt.ErrorIs(err, context.Canceled))
		testwait.Receive(t, "the handler is told", cancelled)
		tr.CloseIdleConnections()
		srv.Close()
	}
}
