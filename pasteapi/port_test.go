package pasteapi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"go.uber.org/goleak"
)

func newLab(t testing.TB, cfg netlab.Config) *netlab.Lab {
	t.Helper()
	cfg.Prefix = "pa"
	return netlabtest.New(t, cfg)
}

func newPool(t testing.TB, size int64) *pmem.Pool {
	t.Helper()
	p, err := pmem.NewMemory("pasteapi-test", pmem.Options{Size: size})
	qt.Assert(t, qt.IsNil(err))
	free := p.Free()
	t.Cleanup(func() {
		qt.Check(t, qt.Equals(p.Free(), free), qt.Commentf("frames leaked"))
		qt.Check(t, qt.Equals(p.Misuses(), 0))
		qt.Check(t, qt.IsNil(p.Close()))
	})
	return p
}

func dial(t testing.TB, l *netlab.Lab, addr string) *net.TCPConn {
	t.Helper()
	var c net.Conn
	err := l.InClient(func() (err error) {
		c, err = net.DialTimeout("tcp", addr, 3*time.Minute)
		return err
	})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(c.SetDeadline(time.Now().Add(3*time.Minute))))
	return c.(*net.TCPConn)
}

// await returns when the connection is registered: what comes before that has no
// ticket.
func await(c *net.TCPConn) error {
	b := []byte{1}
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b)
	return err
}

// roundTrip sends data in pieces and expects it back, then an end of stream.
func roundTrip(c *net.TCPConn, data []byte, piece int) error {
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		for rest := data; len(rest) > 0; {
			n := min(piece, len(rest))
			if _, err := c.Write(rest[:n]); err != nil {
				sent <- err
				return
			}
			rest = rest[n:]
		}
		sent <- c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err = errors.Join(err, <-sent); err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("%d bytes came back from %d, and they differ", len(got), len(data))
	}
	return nil
}

func random(n int, seed int64) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

func TestEcho(t *testing.T) {
	for _, noCsum := range []bool{false, true} {
		t.Run(fmt.Sprintf("complete checksums %v", noCsum), func(t *testing.T) {
			l := newLab(t, netlab.Config{NoTxChecksum: noCsum})
			s := new(ringapp.App).Start(t, l, pasteapi.Options{NIC: l.ServerDev, Pool: newPool(t, 64<<20), DurableAck: noCsum, Copybreak: -1}, net.JoinHostPort(l.ServerIP4.String(), "7000"))
			addr := net.JoinHostPort(l.ServerIP4.String(), "7000")
			for i, size := range []int{1, 100, 1448, 5000, 1 << 20, 8 << 20} {
				c := dial(t, l, addr)
				qt.Check(t, qt.IsNil(await(c)))
				qt.Check(t, qt.IsNil(roundTrip(c, random(size, int64(i)), 1<<16)), qt.Commentf("%d bytes", size))
			}
			var wg sync.WaitGroup
			for i := range 50 {
				c := dial(t, l, addr)
				wg.Add(1)
				go func() {
					defer wg.Done()
					qt.Check(t, qt.IsNil(await(c)))
					qt.Check(t, qt.IsNil(roundTrip(c, random(100_000, int64(i)), 777)))
				}()
			}
			wg.Wait()
			st := s.Port.Status()
			qt.Check(t, qt.IsTrue(st.Stats.Steered > 5000), qt.Commentf("%v", st.Stats.Steered))
			// Complete checksums are TCP's to verify, segment by segment.
			qt.Check(t, qt.Equals(st.Stats.Merged > 0, !noCsum))
			qt.Check(t, qt.IsTrue((st.Stats.CopiedBytes+st.Stats.ReadBytes)*20 < st.Stats.SteeredBytes), qt.Commentf("%+v", st))
			s.Stop(t)
			qt.Check(t, qt.Equals(s.Copied, (st.Stats.CopiedBytes+st.Stats.ReadBytes)))
			for _, cause := range s.Causes {
				qt.Check(t, qt.IsNil(cause))
			}
		})
	}
}

// TestRings has two rings on two NIC queues, each with its own listener on the
// same port. Which queue a connection's segments arrive on and which listener
// gets it are two different hashes, so half of the connections are registered
// with the ring that does not see their frames: those are copied.
func TestRings(t *testing.T) {
	l := newLab(t, netlab.Config{Queues: 2})
	pool := newPool(t, 64<<20)
	addr := net.JoinHostPort(l.ServerIP4.String(), "7001")
	var servers [2]*ringapp.App
	var port *pasteapi.Port
	err := l.InServer(func() (err error) {
		port, err = pasteapi.Open(context.Background(), pasteapi.Options{NIC: l.ServerDev, Pool: pool, Rings: 2, Copybreak: -1})
		return err
	})
	qt.Assert(t, qt.IsNil(err))
	defer func() {
		for _, s := range servers {
			s.Stop(t)
		}
		qt.Check(t, qt.IsNil(l.InServer(port.Close)))
	}()
	for i := range servers {
		servers[i] = new(ringapp.App).StartRing(t, l, port, i, addr)
	}
	var wg sync.WaitGroup
	for i := range 40 {
		c := dial(t, l, addr)
		wg.Add(1)
		go func() {
			defer wg.Done()
			qt.Check(t, qt.IsNil(roundTrip(c, random(200_000, int64(i)), 1000)))
		}()
	}
	wg.Wait()
	st := port.Status()
	qt.Check(t, qt.Equals(len(st.Queues), 2))
	qt.Check(t, qt.IsTrue(st.Stats.Steered > 0), qt.Commentf("%+v", st.Stats))
	for i, s := range servers {
		qt.Check(t, qt.IsTrue(s.Accepted > 0), qt.Commentf("ring %d", i))
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
