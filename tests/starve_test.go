package tests

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/netlab"
)

// What eight NIC queues take of a small pool leaves room for what is stored; and
// what cannot be had is refused before the server is ready.
func TestQueuesOfSmallPool(t *testing.T) {
	l := newLab(t, netlab.Config{Queues: 8})
	s := serve(t, l, poolFile(t), "--pool-size", "32MiB")
	c := newClient(t, l)
	parallel(t, 16, func(i int) error {
		for j := range 60 {
			if _, err := post(c, s.url, random(1500+i, int64(j))); err != nil {
				return fmt.Errorf("request %d: %w", j, err)
			}
		}
		return nil
	})
	qt.Check(t, qt.Equals(s.stop().HTTP.Stored, 16*60))
	_, err := tryServe(t, l, poolFile(t)+"small", "--pool-size", "10MiB")
	qt.Check(t, qt.ErrorMatches(err, "(?s).*1 rings and 8 RX queues of .* want a pool of at least [0-9]+ frames, and it has [0-9]+ of 2048 bytes.*"))
}

// Uploads that do not end, larger than the pool in all, take nothing from others,
// and no record that was acknowledged.
func TestUnfinishedUploads(t *testing.T) {
	for _, onFull := range []string{"refuse", "wrap"} {
		t.Run(onFull, func(t *testing.T) {
			l := newLab(t, netlab.Config{})
			path := poolFile(t)
			s := serve(t, l, path, "--on-full", onFull, "--drain-timeout", "0s")
			c := newClient(t, l)
			const before, after = 100, 300
			for i := range before {
				_, err := post(c, s.url, random(3000, int64(i)))
				qt.Assert(t, qt.IsNil(err))
			}
			const size = 12 << 20
			sent := make(chan error, 8)
			for i := range cap(sent) {
				conn := dial(t, l, s.addr)
				go func() {
					_, err := fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", size, random(size-1, int64(i)))
					sent <- err
				}()
			}
			for range cap(sent) {
				qt.Assert(t, qt.IsNil(<-sent))
			}
			parallel(t, 4, func(i int) error {
				for j := range after / 4 {
					if _, err := post(c, s.url, random(500+j*40, int64(j))); err != nil {
						return fmt.Errorf("request %d: %w", j, err)
					}
				}
				return nil
			})
			e := s.stop()
			qt.Check(t, qt.Equals(e.HTTP.Stored, before+after))
			qt.Check(t, qt.IsTrue(e.HTTP.Evicted > 0), qt.Commentf("%+v", e.HTTP))
			qt.Check(t, qt.HasLen(readLog(t, path), before+after))
		})
	}
}

// SIGHUP and SIGTERM let an upload that has begun finish, and nobody in; the last
// line says what was done.
func TestSignalDuringUpload(t *testing.T) {
	l := newLab(t, netlab.Config{})
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		path := poolFile(t)
		s := serve(t, l, path, "--drain-timeout", "3m")
		c := dial(t, l, s.addr)
		body := random(1<<20, 1)
		_, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:1000])
		qt.Assert(t, qt.IsNil(err))
		for end := time.Now().Add(patience); s.status(l).Stats.Conns == 0; time.Sleep(time.Millisecond) {
			qt.Assert(t, qt.IsTrue(time.Now().Before(end)))
		}
		// A request with an answer, so that the server has seen the one before.
		other := dial(t, l, s.addr)
		_, err = io.WriteString(other, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		qt.Assert(t, qt.IsNil(err))
		_, err = other.Read(make([]byte, 100))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(s.Signal(sig)))
		_, err = io.ReadAll(other) // idle: it is closed
		qt.Assert(t, qt.IsNil(err))
		late, err := tryDial(l, s.addr)
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("let in while the server ends"))
		if err == nil {
			late.Close()
		}
		_, err = c.Write(body[1000:])
		qt.Assert(t, qt.IsNil(err))
		out, err := io.ReadAll(c)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(strings.HasPrefix(string(out), "HTTP/1.1 201 ")), qt.Commentf("%q", out))
		e, err := s.event("stopped")
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(e.HTTP.Stored, 1))
		<-s.Exited()
		qt.Assert(t, qt.IsNil(os.Remove(path)))
	}
}

// The second signal ends a server that waits for an upload.
func TestSecondSignal(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t), "--drain-timeout", "1h")
	c := dial(t, l, s.addr)
	_, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
	qt.Assert(t, qt.IsNil(err))
	for end := time.Now().Add(patience); s.status(l).Stats.Conns == 0; time.Sleep(time.Millisecond) {
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)))
	}
	qt.Assert(t, qt.IsNil(s.Signal(syscall.SIGTERM)))
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		late, err := tryDial(l, s.addr)
		if err != nil {
			break // it drains
		}
		late.Close()
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)))
	}
	qt.Assert(t, qt.IsNil(s.Signal(syscall.SIGINT)))
	select {
	case <-s.Exited():
	case <-time.After(patience):
		t.Fatal("the second signal does not end the server")
	}
}
