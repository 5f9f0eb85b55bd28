package netmap_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/netmap"
	"github.com/pastenet/paste/netmap/portspec"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		os.Exit(helperMain())
	}
	goleak.VerifyTestMain(m)
}

// newLab is a quiet veth pair: no frames but the test's.
func newLab(t testing.TB, queues int) *netlab.Lab {
	t.Helper()
	return netlabtest.New(t, netlab.Config{Prefix: "nm", Queues: queues, Quiet: true})
}

// openIn opens a port in a namespace, for the time of the test.
func openIn(t testing.TB, ns *netlab.Netns, name string, o netmap.Options) *netmap.Port {
	t.Helper()
	p, err := tryOpen(t, ns, name, o)
	qt.Assert(t, qt.IsNil(err))
	return p
}

func tryOpen(t testing.TB, ns *netlab.Netns, name string, o netmap.Options) (p *netmap.Port, err error) {
	t.Helper()
	open := func() { p, err = netmap.Open(context.Background(), name, o) }
	if ns == nil {
		open()
	} else {
		netlabtest.In(t, ns, open)
	}
	if err == nil {
		t.Cleanup(func() { qt.Check(t, qt.IsNil(p.Close())) })
	}
	return p, err
}

func newMemory(t testing.TB, o netmap.MemoryOptions) *netmap.Memory {
	t.Helper()
	m, err := netmap.NewMemory(o)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(m.Close())) })
	return m
}

// frame makes a broadcast frame of a kind that no kernel answers, with a number in it.
func frame(n, size int) []byte {
	f := make([]byte, size)
	copy(f, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5})
	for i := 18; i < size; i++ {
		f[i] = byte(i + n)
	}
	binary.BigEndian.PutUint32(f[14:], uint32(n))
	return f
}

func number(f []byte) int { return int(binary.BigEndian.Uint32(f[14:])) }

// put writes a frame into the next slots of a TX ring, pieces of at most most bytes.
func put(t testing.TB, ring *netmap.Ring, f []byte, most int) bool {
	t.Helper()
	if int(ring.Space()) < (len(f)+most-1)/most {
		return false
	}
	for len(f) > 0 {
		s := ring.Slot(ring.Head)
		n := copy(ring.Buf(s)[:most], f)
		f = f[n:]
		s.Len, s.Flags = uint16(n), 0
		if len(f) > 0 {
			s.Flags = netmap.NS_MOREFRAG
		}
		ring.Head = ring.Next(ring.Head)
	}
	ring.Cur = ring.Head
	return true
}

// take reads what an RX ring has: whole frames, put together, and how many slots each
// had.
func take(t testing.TB, ring *netmap.Ring) (frames [][]byte, slots []int) {
	t.Helper()
	var f []byte
	n := 0
	for !ring.Empty() {
		s := ring.Slot(ring.Head)
		f = append(f, ring.Buf(s)[:s.Len]...)
		n++
		more := s.Flags&netmap.NS_MOREFRAG != 0
		ring.Head = ring.Next(ring.Head)
		if !more {
			frames, slots = append(frames, f), append(slots, n)
			f, n = nil, 0
		}
	}
	qt.Assert(t, qt.IsNil(f), qt.Commentf("half a frame"))
	ring.Cur = ring.Head
	return frames, slots
}

// recv polls until n frames came on any ring of a port.
func recv(t testing.TB, p *netmap.Port, n int) (frames [][]byte) {
	t.Helper()
	testwait.Until(t, "frames", func() bool {
		_, err := p.Poll(netmap.In, 100*time.Millisecond)
		qt.Assert(t, qt.IsNil(err))
		for i := range p.NumRX() {
			got, _ := take(t, p.RX(i))
			frames = append(frames, got...)
		}
		qt.Assert(t, qt.IsNil(p.RxSync())) // gives the slots back
		return len(frames) >= n
	})
	return frames
}

func isUnsupported(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

func spec(t testing.TB, name string) portspec.Spec {
	t.Helper()
	s, err := portspec.Parse(name)
	qt.Assert(t, qt.IsNil(err))
	return *s
}

// same compares frames, or one with one.
func same[T []byte | [][]byte](t testing.TB, got, want T) {
	t.Helper()
	list := func(x any) [][]byte {
		if f, ok := x.([]byte); ok {
			return [][]byte{f}
		}
		return x.([][]byte)
	}
	g, w := list(any(got)), list(any(want))
	qt.Assert(t, qt.Equals(len(g), len(w)))
	for i := range g {
		qt.Assert(t, qt.IsTrue(bytes.Equal(g[i], w[i])), qt.Commentf("frame %d: %x, must be %x", i, g[i], w[i]))
	}
}
