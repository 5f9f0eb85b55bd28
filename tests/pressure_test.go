package tests

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// A full pool refuses bodies with 507 and nothing else: GETs, other
// connections and what is stored go on. After a truncation there is room.
func TestPoolFull(t *testing.T) {
	l := newLab(t, netlab.Config{})
	pool := poolFile(t)
	s := serve(t, l, pool, "--pool-size", "16MiB")
	c := newClient(t, l)
	const size = 60_000
	stored := map[uint64]int64{}
	refused := 0
	for i := int64(0); refused < 20; i++ {
		qt.Assert(t, qt.IsTrue(i < 2000), qt.Commentf("16 MiB hold more than 120 MB"))
		resp, err := c.Post(s.url, "", newReader(random(size, i)))
		qt.Assert(t, qt.IsNil(err))
		if resp.StatusCode == http.StatusInsufficientStorage {
			refused++
			_, err := io.Copy(io.Discard, resp.Body)
			qt.Assert(t, qt.IsNil(err))
			resp.Body.Close()
		} else {
			seq, err := seqOf(resp)
			qt.Assert(t, qt.IsNil(err))
			stored[seq] = i
		}
		qt.Assert(t, qt.IsNil(get(c, s.url)))
	}
	parallel(t, 20, func(int) error { return get(c, s.url) })
	qt.Check(t, qt.StringContains(s.Said(), "full"))
	qt.Check(t, qt.IsTrue(s.stop().HTTP.Full >= 20))
	log := readLog(t, pool)
	qt.Check(t, qt.Equals(len(log), len(stored)))
	for seq, i := range stored {
		qt.Check(t, qt.Equals(log[seq], sum(random(size, i))))
	}

	p, err := pmem.Open(pool, pmem.Options{})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Log().Truncate(p.Log().Next())))
	qt.Assert(t, qt.IsNil(p.Close()))
	for _, onFull := range []string{"refuse", "wrap"} {
		s = serve(t, l, pool, "--on-full", onFull)
		c.CloseIdleConnections()
		n := 20
		if onFull == "wrap" {
			n = 300
		}
		for i := range n {
			_, err := post(c, s.url, random(size, int64(i)))
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s: body %d", onFull, i))
		}
		s.stop()
	}
}

// Small bodies take a pool to its last frame. Even then new connections are
// served, also those whose request is there before they are accepted.
func TestLastFrame(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t), "--pool-size", "16MiB")
	full := false
	c := dial(t, l, s.addr)
	in := bufio.NewReader(c)
	for i := 0; !full; i++ {
		qt.Assert(t, qt.IsTrue(i < 100_000))
		resp, err := ask(c, in, "POST", "x")
		qt.Assert(t, qt.IsNil(err))
		full = resp.StatusCode == http.StatusInsufficientStorage
	}
	for range 5 {
		parallel(t, 50, func(i int) error {
			c, err := tryDial(l, s.addr)
			if err != nil {
				return err
			}
			defer c.Close()
			in := bufio.NewReader(c)
			for _, want := range []int{200, 507, 200} {
				method := map[int]string{200: "GET", 507: "POST"}[want]
				resp, err := ask(c, in, method, map[string]string{"POST": "x"}[method])
				if err != nil {
					return err
				}
				if resp.StatusCode != want {
					return fmt.Errorf("%s: %s", method, resp.Status)
				}
			}
			return nil
		})
	}
	st := s.status(l)
	qt.Check(t, qt.Equals(st.Pool.Free, 0))
	qt.Check(t, qt.Equals(s.stop().HTTP.Rejected, 0))
}

// An application that keeps every buffer that it can get does not stop
// receiving: Keep tells it that there is none.
func TestHoarder(t *testing.T) {
	l := newLab(t, netlab.Config{})
	pool := newPool(t, 16<<20)
	var kept []uint32
	var denied int
	hashes := map[int]hash.Hash{}
	a := &ringapp.App{}
	a.OnData = func(a *ringapp.App, s *pasteapi.Slot) error {
		h := hashes[s.Fd()]
		if h == nil {
			h = sha256.New()
			hashes[s.Fd()] = h
		}
		in := *s
		frame, err := a.Ring.Keep(s)
		if errors.Is(err, pasteapi.ErrNoBuffers) {
			denied++
			h.Write(a.Ring.RX().Payload(s))
			return nil
		}
		if err != nil {
			return err
		}
		kept = append(kept, frame)
		h.Write(pool.Frame(frame)[in.Doff():in.Len])
		return nil
	}
	a.OnClose = func(a *ringapp.App, fd int) error {
		sum := hashes[fd].Sum(nil)
		delete(hashes, fd)
		return a.Send(fd, sum)
	}
	a.Start(t, l, pasteapi.Options{NIC: l.ServerDev, Receive: pasteapi.ReceiveSteered, Pool: pool}, net.JoinHostPort(l.ServerIP4.String(), "7000"))
	upload := func(n int) func(i int) error {
		return func(i int) error {
			data := random(n, int64(i))
			c, err := tryDial(l, a.Addr)
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.Write(data); err != nil {
				return err
			}
			if err := c.CloseWrite(); err != nil {
				return err
			}
			got, err := io.ReadAll(c)
			if want := sum(data); err == nil && !bytes.Equal(got, want[:]) {
				err = errors.New("the application received something else")
			}
			return err
		}
	}
	parallel(t, 8, upload(4<<20))
	a.Do(func() {
		qt.Check(t, qt.IsTrue(denied > 100), qt.Commentf("%d kept, %d denied", len(kept), denied))
		pool.UnrefAll(kept)
		kept, denied = nil, 0
	})
	parallel(t, 4, upload(1<<20))
	a.Do(func() { qt.Check(t, qt.IsTrue(len(kept) > 100)) })
	a.Stop(t)
	pool.UnrefAll(kept)
}

// An application that does nothing for two seconds loses nothing, and the rest
// of the NIC does not notice.
func TestStall(t *testing.T) {
	l := newLab(t, netlab.Config{})
	a := startEcho(t, l)
	b := startBystanders(t, l)
	b.onward(t)
	stalled := make(chan struct{})
	go a.Do(func() { close(stalled); time.Sleep(2 * time.Second) })
	<-stalled
	done := make(chan struct{})
	go func() {
		defer close(done)
		parallel(t, 20, func(i int) error { return tripFrom(l, a.Addr, random(500_000, int64(i)), 10_000) })
	}()
	b.onward(t)
	<-done
	b.onward(t)
	b.end(t)
}

// A peer that sends and never reads is slowed down by TCP; the others are not.
func TestPeerNeverReads(t *testing.T) {
	l := newLab(t, netlab.Config{})
	a := startEcho(t, l)
	deaf := dial(t, l, a.Addr)
	const size = 60 << 20 // more than all socket buffers and the pool hold
	done := make(chan error, 1)
	go func() {
		_, err := deaf.Write(make([]byte, size))
		done <- err
	}()
	waitFor(t, func() bool { return a.Port.Status().Stats.Held > 0 })
	parallel(t, 8, func(i int) error { return tripFrom(l, a.Addr, random(2<<20, int64(i)), 1<<15) })
	select {
	case err := <-done:
		t.Errorf("the deaf peer could send everything: %v", err)
	default:
	}
	qt.Check(t, qt.Equals(a.Port.Status().Stats.TxFailed, 0))
	// It begins to read, and all goes on.
	n, err := io.Copy(io.Discard, io.LimitReader(deaf, size))
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(n, size))
	qt.Check(t, qt.IsNil(<-done))
}

// A peer that makes the application produce much more than it reads is given
// up at the limit, by name, and takes nobody along.
func TestTxOverflow(t *testing.T) {
	l := newLab(t, netlab.Config{})
	a := &ringapp.App{}
	var flood [2000]byte
	a.OnData = func(a *ringapp.App, s *pasteapi.Slot) error {
		first := a.Ring.RX().Payload(s)[0]
		if first != '*' {
			return a.Echo(s)
		}
		for range 3000 { // 6 MB
			if err := a.Send(s.Fd(), flood[:]); err != nil {
				return err
			}
		}
		return nil
	}
	a.Start(t, l, pasteapi.Options{NIC: l.ServerDev, Receive: pasteapi.ReceiveSteered, Pool: newPool(t, 64<<20), TxLimit: 1 << 20}, net.JoinHostPort(l.ServerIP4.String(), "7000"))
	deaf := dial(t, l, a.Addr)
	qt.Assert(t, qt.IsNil(deaf.SetReadBuffer(4096)))
	_, err := deaf.Write([]byte("*"))
	qt.Assert(t, qt.IsNil(err))
	parallel(t, 8, func(i int) error { return tripFrom(l, a.Addr, append([]byte{1}, make([]byte, 500_000)...), 1<<15) })
	waitFor(t, func() bool { return a.Port.Status().Stats.Conns == 0 })
	deaf.Close()
	a.Stop(t)
	overflows := 0
	for _, cause := range a.Causes {
		if errors.Is(cause, pasteapi.ErrTxOverflow) {
			overflows++
		} else {
			qt.Check(t, qt.IsNil(cause))
		}
	}
	qt.Check(t, qt.Equals(overflows, 1))
}
