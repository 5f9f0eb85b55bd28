package pasteapi

import (
	"crypto/sha256"
	"hash"
	"math/rand"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// TestJoinAtRandom puts connections that are read under the verdict at any time, while
// their peers send messages of all sizes, slots are short, and payloads are announced
// and kept at random: every byte comes once, in order, and then the end.
func TestJoinAtRandom(t *testing.T) {
	for _, mode := range []ReceiveMode{ReceiveAuto, ReceiveCopied} {
		t.Run(mode.String(), func(t *testing.T) {
			r, pool := newTestRing(t, func(o *Options) { o.Slots, o.Receive = 256, mode })
			all := joinAtRandom(t, r, pool)
			for fd, rc := range all {
				qt.Check(t, qt.Equals(rc.n, switchSize))
				qt.Check(t, qt.DeepEquals(rc.got.Sum(nil), rc.want.Sum(nil)), qt.Commentf("fd %d", fd))
				qt.Assert(t, qt.IsNil(r.Unregister(fd)))
			}
			n := r.count()
			qt.Check(t, qt.IsTrue(n.CopiedBytes > 100_000 && n.ReadBytes > 1<<20), qt.Commentf("%+v", n))
			qt.Check(t, qt.Equals(n.Joined > 5, mode == ReceiveAuto), qt.Commentf("%+v", n))
		})
	}
}

const (
	switchConns = 12
	switchSize  = 3 << 20 // bytes that each sends
)

// switched is what one connection of TestJoinAtRandom has brought.
type switched struct {
	want, got hash.Hash
	n         int
	ended     bool
	kept      [][]pmem.Fragment // not hashed yet
}

// take hashes what was kept.
func (s *switched) take(pool *pmem.Pool) {
	for _, frags := range s.kept {
		for _, f := range frags {
			s.got.Write(pool.Frame(f.Frame)[f.Off:][:f.Len])
			pool.Unref(f.Frame)
		}
	}
	s.kept = s.kept[:0]
}

func joinAtRandom(t *testing.T, r *Ring, pool *pmem.Pool) map[int]*switched {
	all := map[int]*switched{}
	var begin []func()
	var senders sync.WaitGroup
	for i := range switchConns {
		fd, peer := tcpPair(t)
		t.Cleanup(func() { unix.Close(fd) })
		qt.Assert(t, qt.IsNil(r.Register(fd)))
		rc := &switched{want: sha256.New(), got: sha256.New()}
		all[fd] = rc
		begin = append(begin, func() {
			defer senders.Done()
			sendMixed(t, peer, rc.want, switchSize, int64(i))
		})
	}
	rng := rand.New(rand.NewSource(1))
	ended := 0
	for end := time.Now().Add(3 * time.Minute); ended < switchConns; {
		if len(begin) > 0 { // one after the other, so that the delivery ring has room
			senders.Add(1)
			go begin[0]()
			begin = begin[1:]
		}
		_, err := r.Poll(time.Second)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("%d of %d have ended, %+v", ended, switchConns, r.count()))
		for seg := range r.Segments() {
			rc := all[seg.Fd()]
			qt.Assert(t, qt.IsFalse(rc.ended), qt.Commentf("something behind the end"))
			rc.n += len(seg.Payload())
			if seg.Closed() {
				qt.Check(t, qt.IsNil(seg.Cause()))
				rc.ended = true
				rc.take(pool)
				ended++
				continue
			}
			if len(rc.kept) < 3 && rng.Intn(4) == 0 {
				frags, err := seg.KeepAll(nil)
				qt.Assert(t, qt.IsNil(err))
				rc.kept = append(rc.kept, frags)
			} else {
				rc.take(pool)
				rc.got.Write(seg.Payload())
			}
			switch rng.Intn(200) {
			case 0, 1, 2, 3:
				qt.Assert(t, qt.IsNil(r.Expect(seg.Fd(), rng.Int63n(200_000))))
			case 4:
				r.in.Join(&r.conns.Find(seg.Fd()).in)
			}
		}
	}
	senders.Wait()
	return all
}

// sendMixed sends n bytes in messages of all sizes.
func sendMixed(t *testing.T, c *net.TCPConn, sum hash.Hash, n int, seed int64) {
	rng := rand.New(rand.NewSource(seed))
	for n > 0 {
		size := 1 + rng.Intn(100)
		switch rng.Intn(4) {
		case 0:
			size = 1 + rng.Intn(2000)
		case 1:
			size = 1 + rng.Intn(100_000)
		}
		b := make([]byte, min(size, n))
		rng.Read(b)
		sum.Write(b)
		if _, err := c.Write(b); !qt.Check(t, qt.IsNil(err)) {
			return
		}
		n -= len(b)
		time.Sleep(time.Duration(rng.Intn(300)) * time.Microsecond)
	}
	qt.Check(t, qt.IsNil(c.CloseWrite()))
}

// TestCopyForSmall: a connection is read from its socket until it has brought little
// for a while, when many others bring something as well. One that has brought much is
// read for good.
func TestCopyForSmall(t *testing.T) {
	r, _ := newTestRing(t, func(o *Options) { o.Receive = ReceiveAuto })
	var peers []net.Conn
	for range copyFrom + 8 {
		fd, peer := tcpPair(t)
		t.Cleanup(func() { unix.Close(fd) })
		qt.Assert(t, qt.IsNil(r.Register(fd)))
		peers = append(peers, peer)
	}
	exchange := func(n int, peers ...net.Conn) {
		t.Helper()
		for _, peer := range peers {
			_, err := peer.Write(make([]byte, n))
			qt.Assert(t, qt.IsNil(err))
		}
		for got := 0; got < n*len(peers); {
			_, err := r.Poll(time.Second)
			qt.Assert(t, qt.IsNil(err))
			for seg := range r.Segments() {
				got += len(seg.Payload())
			}
		}
	}
	large, small, others := peers[0], peers[1], peers[1:]

	// However many connections there are, it does not pay for the one that brings something.
	for range 100 {
		exchange(100, small)
	}
	qt.Check(t, qt.Equals(r.count().Joined, 0))

	exchange(20_000, large)
	for range 2 * copyAfter {
		exchange(100, peers...)
	}
	n := r.count()
	qt.Check(t, qt.Equals(n.Joined, uint64(len(others))))
	exchange(100, small)
	qt.Check(t, qt.Equals(r.count().CopiedBytes, n.CopiedBytes+100))
	exchange(100, large)
	qt.Check(t, qt.Equals(r.count().CopiedBytes, n.CopiedBytes+100))
	qt.Check(t, qt.Equals(r.count().Joined, n.Joined))
}

// copyAfter is as in package receive.
const copyAfter = 16
