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
	"golang.org/x/sys/unix"
)

// TestJoinAtRandom puts connections that are read under the verdict at any time, while their peers send messages of all sizes, and slots are short: every
// byte comes once, in order, and then the end.
func TestJoinAtRandom(t *testing.T) {
	const conns, size = 12, 3 << 20
	r, _ := newTestRing(t, func(o *Options) { o.Slots = 256 })
	type receiver struct {
		want, got hash.Hash
		n         int
		ended     bool
	}
	all := map[int]*receiver{}
	var begin []func()
	var senders sync.WaitGroup
	for i := range conns {
		fd, peer := tcpPair(t)
		defer unix.Close(fd)
		qt.Assert(t, qt.IsNil(r.Register(fd)))
		rc := &receiver{want: sha256.New(), got: sha256.New()}
		all[fd] = rc
		begin = append(begin, func() {
			defer senders.Done()
			sendMixed(t, peer, rc.want, size, int64(i))
		})
	}
	rng := rand.New(rand.NewSource(1))
	ended := 0
	for end := time.Now().Add(3 * time.Minute); ended < conns; {
		if len(begin) > 0 { // one after the other, so that the delivery ring has room
			senders.Add(1)
			go begin[0]()
			begin = begin[1:]
		}
		_, err := r.Poll(time.Second)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("%d of %d have ended, %+v", ended, conns, r.count()))
		for seg := range r.Segments() {
			rc := all[seg.Fd()]
			qt.Assert(t, qt.IsFalse(rc.ended), qt.Commentf("something behind the end"))
			rc.got.Write(seg.Payload())
			rc.n += len(seg.Payload())
			if seg.Closed() {
				qt.Check(t, qt.IsNil(seg.Cause()))
				rc.ended = true
				ended++
			}
			if rng.Intn(200) == 0 {
				r.in.Join(&r.conns.Find(seg.Fd()).in)
			}
		}
	}
	senders.Wait()
	for fd, rc := range all {
		qt.Check(t, qt.Equals(rc.n, size))
		qt.Check(t, qt.DeepEquals(rc.got.Sum(nil), rc.want.Sum(nil)), qt.Commentf("fd %d", fd))
		qt.Assert(t, qt.IsNil(r.Unregister(fd)))
	}
	n := r.count()
	qt.Check(t, qt.IsTrue(n.Joined > 5 && n.CopiedBytes > 100_000 && n.ReadBytes > 1<<20), qt.Commentf("%+v", n))
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

// TestCopyForSmall: a connection is read from its socket until it has brought
// little for a while. One that has brought much is read for good.
func TestCopyForSmall(t *testing.T) {
	r, _ := newTestRing(t)
	connect := func() (exchange func(n int)) {
		fd, peer := tcpPair(t)
		t.Cleanup(func() { unix.Close(fd) })
		qt.Assert(t, qt.IsNil(r.Register(fd)))
		return func(n int) {
			t.Helper()
			_, err := peer.Write(make([]byte, n))
			qt.Assert(t, qt.IsNil(err))
			for got := 0; got < n; {
				_, err := r.Poll(time.Second)
				qt.Assert(t, qt.IsNil(err))
				for seg := range r.Segments() {
					got += len(seg.Payload())
				}
			}
		}
	}
	for range copyFrom - 1 {
		connect()
	}
	small := connect()
	for range 100 {
		small(100)
	}
	n := r.count()
	qt.Check(t, qt.Equals(n.Joined, 1))
	qt.Check(t, qt.IsTrue(n.CopiedBytes > 5000 && n.ReadBytes >= copyAfter*100), qt.Commentf("%+v", n))

	large := connect()
	large(20_000)
	for range 100 {
		large(100)
	}
	was := n.CopiedBytes
	n = r.count()
	qt.Check(t, qt.Equals(n.Joined, 1))
	qt.Check(t, qt.Equals(n.CopiedBytes, was))
}

// copyAfter and copyFrom are as in package receive.
const (
	copyAfter = 16
	copyFrom  = 48
)
