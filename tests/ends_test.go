package tests

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"golang.org/x/sys/unix"
)

// A client that has nothing more to say still gets its reply, wherever the
// end of its stream falls.
func TestHalfClose(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t))
	for _, n := range []int{0, 1, 1000, 1 << 20} {
		for _, pause := range []bool{false, true} {
			c := dial(t, l, s.addr)
			if pause {
				// The server has registered the connection for sure.
				_, err := ask(c, bufio.NewReader(c), "GET", "")
				qt.Assert(t, qt.IsNil(err))
			}
			body := random(n, 3)
			_, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", n, body)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(c.CloseWrite()))
			in := bufio.NewReader(c)
			resp, err := http.ReadResponse(in, nil)
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%d bytes, pause %v", n, pause))
			_, err = seqOf(resp)
			qt.Assert(t, qt.IsNil(err))
			rest, err := io.ReadAll(in)
			qt.Check(t, qt.IsNil(err))
			qt.Check(t, qt.HasLen(rest, 0))
		}
	}
	s.stop()
	for seq, sum := range readLog(t, s.pool) {
		n := []int{0, 0, 1, 1, 1000, 1000, 1 << 20, 1 << 20}[seq-1]
		qt.Check(t, qt.Equals(sum, sha256.Sum256(random(n, 3))), qt.Commentf("record %d", seq))
	}
}

// Clients that end their connection with RST at every point of it cost no
// frame, and the application learns of it.
func TestReset(t *testing.T) {
	l := newLab(t, netlab.Config{})
	a := startEcho(t, l)
	for i := range 200 {
		c := dial(t, l, a.Addr)
		if i%4 > 0 {
			_, err := c.Write(random(i*500, 1))
			if err != nil && !errors.Is(err, unix.ECONNRESET) {
				t.Fatal(err)
			}
		}
		if i%4 == 2 {
			_, err := io.ReadFull(c, make([]byte, i*250))
			qt.Assert(t, qt.IsNil(err))
		}
		qt.Assert(t, qt.IsNil(c.SetLinger(0)))
		c.Close()
		if i%20 == 0 {
			qt.Assert(t, qt.IsNil(tripFrom(l, a.Addr, random(50_000, 2), 5000)))
		}
	}
	waitFor(t, func() bool { return a.Port.Status().Stats.Conns == 0 })
	a.Stop(t)
	resets := 0
	for _, cause := range a.Causes {
		if errors.Is(cause, unix.ECONNRESET) || errors.Is(cause, unix.EPIPE) {
			resets++
		} else {
			qt.Check(t, qt.IsNil(cause))
		}
	}
	qt.Check(t, qt.IsTrue(resets > 50), qt.Commentf("%d resets", resets))
}

// A client that is killed in the middle of an upload leaves nothing in the
// log and disturbs nobody.
func TestClientKilled(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t))
	file := filepath.Join(t.TempDir(), "upload")
	qt.Assert(t, qt.IsNil(os.WriteFile(file, random(20<<20, 1), 0o600)))
	client := newClient(t, l)
	for range 3 {
		curl := l.ClientCommand(context.Background(), "curl", "-sS", "--limit-rate", "200k", "-T", file, s.url)
		before := s.status(l).Stats
		qt.Assert(t, qt.IsNil(curl.Start()))
		waitFor(t, func() bool {
			st := s.status(l).Stats
			return st.SteeredBytes+(st.CopiedBytes+st.ReadBytes) > before.SteeredBytes+(before.CopiedBytes+before.ReadBytes)+100_000
		})
		qt.Assert(t, qt.IsNil(curl.Process.Kill()))
		_ = curl.Wait() // "signal: killed"
		qt.Assert(t, qt.IsNil(get(client, s.url)))
	}
	client.CloseIdleConnections()
	waitFor(t, func() bool { return s.status(l).Stats.Conns == 0 })
	qt.Check(t, qt.Equals(s.stop().HTTP.Stored, 0))
	qt.Check(t, qt.HasLen(readLog(t, s.pool), 0))
}

// Data and FIN arrive before the connection is accepted.
func TestDataAndFinBeforeAccept(t *testing.T) {
	l := newLab(t, netlab.Config{})
	a := startEcho(t, l)
	hold, resume := make(chan struct{}), make(chan struct{})
	go a.Do(func() { close(hold); <-resume })
	<-hold
	const conns = 40
	var open [conns]*net.TCPConn
	for i := range conns {
		open[i] = dial(t, l, a.Addr)
		_, err := open[i].Write(random(1+i*400, int64(i)))
		qt.Assert(t, qt.IsNil(err))
		if i%2 == 0 {
			qt.Assert(t, qt.IsNil(open[i].CloseWrite()))
		}
	}
	close(resume)
	parallel(t, conns, func(i int) error {
		if i%2 == 1 {
			return roundTripRest(open[i], random(1+i*400, int64(i)))
		}
		got, err := io.ReadAll(open[i])
		if err == nil && sha256.Sum256(got) != sha256.Sum256(random(1+i*400, int64(i))) {
			err = fmt.Errorf("%d bytes of %d came back, or others", len(got), 1+i*400)
		}
		return err
	})
}

// roundTripRest goes on with a connection on which first is on its way.
func roundTripRest(c *net.TCPConn, first []byte) error {
	more := random(10_000, 99)
	if _, err := c.Write(more); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err == nil && sha256.Sum256(got) != sha256.Sum256(append(first, more...)) {
		err = fmt.Errorf("%d bytes of %d came back, or others", len(got), len(first)+len(more))
	}
	return err
}

// waitFor polls what can only be polled.
func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
