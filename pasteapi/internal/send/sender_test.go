package send

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/uring"
	"github.com/pastenet/paste/pasteapi/internal/frames"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// slots is a TX ring of the test's own.
type slots []Slot

func (s slots) Slot(i uint32) Slot       { return s[i] }
func (s slots) Exchange(i, frame uint32) { s[i].Frame = frame }

type bench struct {
	pool   *pmem.Pool
	frames *frames.Frames
	slots  slots
	out    *Sender
}

func newBench(t *testing.T, limit int, m Means) *bench {
	t.Helper()
	b := &bench{slots: make(slots, 64)}
	var err error
	b.pool, err = pmem.NewMemory("send-test", pmem.Options{Size: 8 << 20})
	qt.Assert(t, qt.IsNil(err))
	free := b.pool.Free()
	b.frames = frames.New(b.pool)
	bufs := make([]uint32, len(b.slots))
	qt.Assert(t, qt.IsNil(b.frames.Fill(bufs)))
	for i := range b.slots {
		b.slots[i].Frame = bufs[i]
	}
	b.out, err = New(b.frames, b.slots, len(b.slots), limit, m)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() {
		qt.Check(t, qt.IsNil(b.out.Close()))
		b.frames.Close()
		qt.Check(t, qt.Equals(b.pool.Free(), free), qt.Commentf("frames leaked"))
		qt.Check(t, qt.Equals(b.pool.Misuses(), 0))
		qt.Check(t, qt.IsNil(b.pool.Close()))
	})
	return b
}

// byEach runs a test with each means.
func byEach(t *testing.T, test func(*testing.T, Means)) {
	t.Run("plain", func(t *testing.T) { test(t, Means{}) })
	t.Run("io_uring", func(t *testing.T) { test(t, Means{URing: true}) })
}

// put writes a payload into slot i, at off.
func (b *bench) put(i, off int, payload []byte) {
	s := &b.slots[i]
	s.Off, s.End = off, off+copy(b.frames.Bytes(s.Frame)[off:], payload)
}

// pair connects a queue with a peer.
func pair(t *testing.T) (*Queue, net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	qt.Assert(t, qt.IsNil(err))
	f := os.NewFile(uintptr(fds[1]), "peer")
	peer, err := net.FileConn(f)
	qt.Assert(t, qt.IsNil(err))
	f.Close()
	t.Cleanup(func() { peer.Close(); unix.Close(fds[0]) })
	q := new(Queue)
	q.Init(fds[0])
	return q, peer
}

// TestOrder: the slots of several connections, mixed, arrive in order for each.
func TestOrder(t *testing.T) { byEach(t, testOrder) }

func testOrder(t *testing.T, m Means) {
	b := newBench(t, 1<<20, m)
	var queues [3]*Queue
	var peers [3]net.Conn
	for i := range queues {
		queues[i], peers[i] = pair(t)
	}
	var want [3][]byte
	for i := range 60 {
		payload := bytes.Repeat([]byte{byte(i)}, 1+i*7)
		b.put(i, i%64, payload)
		b.out.Add(queues[i%3], uint32(i))
		want[i%3] = append(want[i%3], payload...)
	}
	qt.Assert(t, qt.IsNil(b.out.Send()))
	for i := range peers {
		got := make([]byte, len(want[i]))
		_, err := io.ReadFull(peers[i], got)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(bytes.Equal(got, want[i])), qt.Commentf("connection %d", i))
	}
	qt.Check(t, qt.Equals(b.out.Sends, 3))
	qt.Check(t, qt.HasLen(b.out.Events(), 0))
}

// TestFullSocket: what a full socket does not take waits in its order, delays
// nobody else, and its connection is stuck until all of it was taken.
func TestFullSocket(t *testing.T) { byEach(t, testFullSocket) }

func testFullSocket(t *testing.T, m Means) {
	b := newBench(t, 1<<20, m)
	slow, slowPeer := pair(t)
	quick, quickPeer := pair(t)
	var want []byte
	next := byte(0)
	for slow.Bytes() <= 300_000 {
		for i := range 60 {
			payload := bytes.Repeat([]byte{next}, 2000)
			next++
			b.put(i, 0, payload)
			b.out.Add(slow, uint32(i))
			want = append(want, payload...)
		}
		b.put(60, 0, []byte("quick"))
		b.out.Add(quick, 60)
		qt.Assert(t, qt.IsNil(b.out.Send()))
		got := make([]byte, 5)
		_, err := io.ReadFull(quickPeer, got)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(string(got), "quick"))
	}
	qt.Check(t, qt.DeepEquals(b.out.Events(), []Event{{FD: slow.fd, Kind: Stuck}}))
	qt.Check(t, qt.IsTrue(b.out.Blocked()))

	done := make(chan []byte)
	go func() {
		got := make([]byte, len(want))
		_, _ = io.ReadFull(slowPeer, got)
		done <- got
	}()
	for slow.Bytes() > 0 {
		b.out.Resume(slow)
	}
	qt.Check(t, qt.IsTrue(bytes.Equal(<-done, want)))
	qt.Check(t, qt.DeepEquals(b.out.Events(), []Event{{FD: slow.fd, Kind: Free}}))
	qt.Check(t, qt.IsFalse(b.out.Blocked()))
}

// TestOverflowAndDeath: a peer that does not read is given up at the limit, one
// that has gone at once, and what they had waiting goes back.
func TestOverflowAndDeath(t *testing.T) { byEach(t, testOverflowAndDeath) }

func testOverflowAndDeath(t *testing.T, m Means) {
	b := newBench(t, 100_000, m)
	slow, _ := pair(t)
	dead, deadPeer := pair(t)
	deadPeer.Close()
	b.put(0, 0, []byte("nobody"))
	b.out.Add(dead, 0)
	qt.Assert(t, qt.IsNil(b.out.Send()))
	qt.Check(t, qt.DeepEquals(b.out.Events(), []Event{{FD: dead.fd, Kind: Failed, Cause: unix.EPIPE}}))
	for sent := 0; !slow.Failed(); sent += 60 * 2000 {
		qt.Assert(t, qt.IsTrue(sent < 64<<20), qt.Commentf("%d bytes", sent))
		for i := range 60 {
			b.put(i, 0, make([]byte, 2000))
			b.out.Add(slow, uint32(i))
		}
		qt.Assert(t, qt.IsNil(b.out.Send()))
	}
	events := b.out.Events()
	qt.Check(t, qt.ErrorIs(events[len(events)-1].Cause, ErrOverflow))
	qt.Check(t, qt.Equals(slow.Bytes(), 0))
	qt.Check(t, qt.IsFalse(b.out.Blocked()))
	dropped := b.out.Dropped
	b.out.Add(slow, 0)
	qt.Check(t, qt.Equals(b.out.Dropped, dropped+1))
}

// TestOneSend: many slots of one connection are one message, sent from where they
// are, and more than a message can have leave in their order all the same.
func TestOneSend(t *testing.T) { byEach(t, testOneSend) }

func testOneSend(t *testing.T, m Means) {
	b := newBench(t, 1<<20, m)
	q, peer := pair(t)
	other, _ := pair(t)
	var want []byte
	for i := range 40 {
		payload := bytes.Repeat([]byte{byte(i)}, 1000+i)
		b.put(i, i, payload)
		b.out.Add(q, uint32(i))
		want = append(want, payload...)
	}
	b.put(50, 0, []byte("other"))
	b.out.Add(other, 50)
	qt.Assert(t, qt.IsNil(b.out.Send()))
	got := make([]byte, len(want))
	_, err := io.ReadFull(peer, got)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(bytes.Equal(got, want)))
	qt.Check(t, qt.Equals(b.out.Sends, 2))
	qt.Check(t, qt.Equals(b.out.Slots, 41))
	if m.URing {
		qt.Check(t, qt.Equals(b.out.Syscalls, 1))
	} else {
		qt.Check(t, qt.Equals(b.out.Syscalls, 2))
	}
}

// TestChoose: what costs less is chosen, and plain sends where nothing else is.
func TestChoose(t *testing.T) {
	none := fmt.Errorf("%w: switched off", uring.ErrNotAvailable)
	for _, tc := range []struct {
		costs Costs
		err   error
		uring bool
		why   string
	}{
		{Costs{Plain: 600, URing: 290}, nil, true, "a send costs 600 ns by a system call of its own and 290 ns in a batch of io_uring"},
		{Costs{Plain: 300, URing: 300}, nil, false, "a send costs 300 ns by a system call of its own and 300 ns in a batch of io_uring"},
		{Costs{}, none, false, "io_uring is not available: switched off"},
		{Costs{}, unix.EMFILE, false, "the costs could not be measured: too many open files"},
	} {
		m := choose(tc.costs, tc.err)
		qt.Check(t, qt.Equals(m.URing, tc.uring))
		qt.Check(t, qt.Equals(m.Why, tc.why))
		qt.Check(t, qt.ErrorIs(m.Missing, tc.err))
	}
}

// TestMeasure: both means have cost something.
func TestMeasure(t *testing.T) {
	c, err := Measure()
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(c.Plain > 0 && c.URing > 0), qt.Commentf("%v", c))
}

// TestResumeTogether: what waits for a socket leaves in few system calls when there
// is room again, not in one for each slot.
func TestResumeTogether(t *testing.T) {
	b := newBench(t, 1<<20, Means{})
	q, peer := pair(t)
	for q.Bytes() < 200_000 {
		for i := range 60 {
			b.put(i, 0, make([]byte, 2000))
			b.out.Add(q, uint32(i))
		}
		qt.Assert(t, qt.IsNil(b.out.Send()))
	}
	waits, calls := q.Bytes(), b.out.Syscalls
	_, err := io.ReadFull(peer, make([]byte, b.out.Bytes))
	qt.Assert(t, qt.IsNil(err))
	b.out.Resume(q)
	left := q.Bytes()
	qt.Check(t, qt.IsTrue(waits-left > 50_000), qt.Commentf("%d of %d bytes still wait", left, waits))
	qt.Check(t, qt.IsTrue(b.out.Syscalls-calls <= 4), qt.Commentf("%d system calls", b.out.Syscalls-calls))
	b.out.Drop(q)
}
