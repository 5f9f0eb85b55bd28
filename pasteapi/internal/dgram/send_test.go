package dgram

import (
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pasteapi/internal/frames"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// txRing is a TX ring as the sender sees it: slot i holds a number.
type txRing struct {
	f    *frames.Frames
	bufs []uint32
	len  int
}

func (r *txRing) Datagram(i uint32) (frame uint32, doff, end int) { return r.bufs[i], 0, r.len }
func (r *txRing) Exchange(i, frame uint32)                        { r.bufs[i] = frame }

// watcher counts.
type watcher struct{ on, off int }

func (w *watcher) WantRoom(_ int, yes bool) error {
	if yes {
		w.on++
	} else {
		w.off++
	}
	return nil
}

// TestFullSocket: what a full socket does not take waits, in order, and follows; more
// than the limit is dropped and counted; no frame is lost.
func TestFullSocket(t *testing.T) {
	pool, err := pmem.NewMemory("dgram-test", pmem.Options{Size: 8 << 20})
	qt.Assert(t, qt.IsNil(err))
	free := pool.Free()
	f := frames.New(pool)
	ring := &txRing{f: f, bufs: make([]uint32, 64), len: 10}
	qt.Assert(t, qt.IsNil(f.Fill(ring.bufs)))
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	to := &Socket{connected: true}
	to.FD = pair[0]
	var count Counters
	var watch watcher
	s := NewSender(f, ring, &watch, &count)

	sent := 0
	for sent < 3*queueLimit {
		for i := range uint32(50) {
			copy(f.Bytes(ring.bufs[i]), fmt.Sprintf("%010d", sent))
			s.Add(to, i)
			sent++
		}
		s.Send()
	}
	qt.Assert(t, qt.Equals(to.Queued(), queueLimit))
	qt.Assert(t, qt.Equals(to.QueuedBytes(), 10*queueLimit))
	qt.Assert(t, qt.IsTrue(s.Blocked()))
	taken := int(count.Sent)
	qt.Assert(t, qt.Equals(taken+queueLimit+int(count.Dropped), sent))

	b := make([]byte, 100)
	for want := range taken + queueLimit {
		n, err := unix.Read(pair[1], b)
		if err == unix.EAGAIN {
			s.ResumeAll()
			n, err = unix.Read(pair[1], b)
		}
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(string(b[:n]), fmt.Sprintf("%010d", want)))
	}
	s.Resume(to)
	qt.Check(t, qt.IsFalse(s.Blocked()))
	qt.Check(t, qt.Equals(int(count.Sent), taken+queueLimit))
	qt.Check(t, qt.IsNil(s.Await(to, false)))
	qt.Check(t, qt.IsNil(s.Await(to, false)))
	qt.Check(t, qt.Equals(watch, watcher{on: 1, off: 1})) // told of room only while something waited

	for i := range uint32(50) { // what waits when a socket goes is given back
		s.Add(to, i)
	}
	s.Send()
	s.Drop(to)
	qt.Check(t, qt.IsNil(f.Audit(func(v frames.Visit) {
		for _, b := range ring.bufs {
			v(frames.TXSlot, b)
		}
		s.Visit(v)
	})))
	f.Close()
	qt.Check(t, qt.Equals(pool.Free(), free))
	qt.Check(t, qt.IsNil(pool.Close()))
}
