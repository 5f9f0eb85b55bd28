package tests

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/internal/seed"
)

// Somebody who sees nothing and sends a lot, with the addresses of others: SYNs,
// RSTs and payload for connections that exist, or for such as never did. The
// connections that exist go on, byte for byte; new ones can be made; and what the
// flood takes of the pool is bounded, and comes back.
func TestHostileFlood(t *testing.T) {
	const packets = 5000 // of each kind
	// Tickets, a NIC queue that has not been looked at, slots of both rings, and
	// what a ring takes at once.
	const mostTaken = 8192 + 2048 + 2*1024 + 1024
	for _, way := range waysIn {
		t.Run(way.name, func(t *testing.T) {
			l := newLab(t, netlab.Config{})
			link := newRawLink(t, l)
			o := way.options(l.ServerDev)
			o.Pool = newPool(t, 64<<20)
			a := new(ringapp.App).Start(t, l, o, net.JoinHostPort(l.ServerIP4.String(), "7000"))
			qt.Assert(t, qt.IsNil(tripFrom(l, a.Addr, random(1<<20, 1), 1<<15)))
			idle := o.Pool.Free()

			const victims = 4
			conns := make([]*net.TCPConn, victims)
			for i := range conns {
				conns[i] = dial(t, l, a.Addr)
			}
			waitFor(t, func() bool { return a.Port.Status().Stats.Conns == victims })
			stop, least := make(chan struct{}), make(chan int)
			go func() { least <- leastFree(o.Pool.Free, stop) }()
			done := make(chan error, 1)
			go func() { done <- flood(link, seed.New(t), conns, packets) }()
			parallel(t, victims, func(i int) error {
				return talkDuring(conns[i], random(50_000, int64(i)), 40)
			})
			qt.Check(t, qt.IsNil(<-done))
			parallel(t, victims, func(i int) error { return roundTrip(conns[i], random(1<<20, int64(i)), 10_000) })
			parallel(t, 8, func(i int) error { return tripFrom(l, a.Addr, random(100_000, int64(i)), 1000) })
			close(stop)
			low := <-least
			t.Logf("of %d frames %d were free before, and %d at the worst", o.Pool.Frames(), idle, low)
			qt.Check(t, qt.IsTrue(idle-low < mostTaken), qt.Commentf("%d frames taken", idle-low))
			waitFor(t, func() bool { return o.Pool.Free() >= idle-1024 })
			for _, cause := range a.Causes {
				qt.Check(t, qt.IsNil(cause))
			}
		})
	}
}

// leastFree is the lowest that free returns until stop is closed.
func leastFree(free func() int, stop chan struct{}) int {
	low := free()
	for {
		select {
		case <-stop:
			return low
		case <-time.After(time.Millisecond):
			low = min(low, free())
		}
	}
}

// talkDuring sends data n times, each when it has come back.
func talkDuring(c *net.TCPConn, data []byte, n int) error {
	got := make([]byte, len(data))
	for range n {
		sent := make(chan error, 1)
		go func() {
			_, err := c.Write(data)
			sent <- err
		}()
		_, err := io.ReadFull(c, got)
		if err := errors.Join(err, <-sent); err != nil {
			return err
		}
		if !bytes.Equal(got, data) {
			return errors.New("other bytes came back")
		}
	}
	return nil
}

// flood sends n packets of each kind. It knows the victims' addresses, and
// nothing of their sequence numbers.
func flood(link *rawLink, rng *rand.Rand, victims []*net.TCPConn, n int) error {
	stranger := func(s segment) segment {
		s.sport, s.dport, s.seq, s.ack = uint16(rng.Uint32()), 7000, rng.Uint32(), rng.Uint32()
		return s
	}
	payload := randomBytes(rng, 1400)
	for range n {
		to := victims[rng.IntN(len(victims))].LocalAddr().(*net.TCPAddr)
		victim := func(s segment) segment {
			s = stranger(s)
			s.sport = uint16(to.Port)
			return s
		}
		for _, f := range []struct {
			segment
			from []byte
		}{
			{stranger(segment{flags: syn, syn: true}), link.from[:]},
			{stranger(segment{flags: ack | psh, payload: payload}), link.from[:]},
			{victim(segment{flags: rst}), to.IP.To4()},
			{victim(segment{flags: syn, syn: true}), to.IP.To4()},
			{victim(segment{flags: ack, payload: payload}), to.IP.To4()},
			{victim(segment{flags: ack, payload: payload, breakSum: true}), to.IP.To4()},
		} {
			spoofed := *link
			copy(spoofed.from[:], f.from)
			if err := link.send(spoofed.frame(f.segment)); err != nil && !errors.Is(err, syscall.ENOBUFS) {
				return err
			}
		}
	}
	return nil
}

// A server that stands still (SIGSTOP) for a while: its clients wait, everybody
// else on the NIC does not, and afterwards everything is stored that was sent.
func TestStopped(t *testing.T) {
	still := 2 * time.Second
	if os.Getenv(soakVariable) != "" {
		still = time.Minute
	}
	l := newLab(t, netlab.Config{})
	b := startBystanders(t, l)
	s := serve(t, l, poolFile(t))
	c := newClient(t, l)
	const posts = 12
	var seqs [posts]uint64
	body := func(i int) []byte { return random(2<<20, int64(i)) }
	gates := make([]*gate, posts)
	for i := range gates {
		gates[i] = &gate{r: bytes.NewReader(body(i)), free: 1 << 20, half: make(chan struct{}), open: make(chan struct{})}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		parallel(t, posts, func(i int) (err error) {
			seqs[i], err = postReader(c, s.url, gates[i], 2<<20)
			return err
		})
	}()
	for _, g := range gates {
		<-g.half
	}
	qt.Assert(t, qt.IsNil(s.Signal(syscall.SIGSTOP)))
	for _, g := range gates {
		close(g.open) // the rest is sent while nobody receives it
	}
	b.onward(t)
	time.Sleep(still)
	b.onward(t)
	qt.Assert(t, qt.IsNil(s.Signal(syscall.SIGCONT)))
	<-done
	b.onward(t)
	b.end(t)
	s.stop()
	log := readLog(t, s.pool)
	for i, seq := range seqs {
		qt.Check(t, qt.Equals(log[seq], sum(body(i))))
	}
}

// gate is a body whose second half is not read before it is opened.
type gate struct {
	r          io.Reader
	free       int
	half, open chan struct{}
}

func (g *gate) Read(b []byte) (int, error) {
	if g.free == 0 {
		close(g.half)
		<-g.open
		g.free = 1 << 62
	}
	n, err := g.r.Read(b[:min(len(b), g.free)])
	g.free -= n
	return n, err
}

func postReader(c *http.Client, url string, body io.Reader, size int64) (uint64, error) {
	req, err := http.NewRequest(http.MethodPost, url, body)
	if err != nil {
		return 0, err
	}
	req.ContentLength = size
	resp, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	return seqOf(resp)
}
