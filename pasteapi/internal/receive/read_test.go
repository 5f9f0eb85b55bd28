package receive

import (
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/pasteapi/internal/conns"
	"github.com/pastenet/paste/pasteapi/internal/frames"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// What is much is read into runs, as few as it takes, and into frames only what is left.
func TestFillTakesRuns(t *testing.T) {
	pool, err := pmem.NewMemory("read-test", pmem.Options{Size: 16 << 20})
	qt.Assert(t, qt.IsNil(err))
	defer pool.Close()
	f := frames.New(pool)
	w := &read{frames: f, count: new(Counters), clock: new(Clock)}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	qt.Assert(t, qt.IsNil(unix.SetsockoptInt(pair[1], unix.SOL_SOCKET, unix.SO_SNDBUF, 208<<10)))
	run, room := f.RunSize()-CopiedDoff, f.Size()-CopiedDoff
	for _, c := range []struct{ sent, want, slots, runs, used, n int }{
		{100, 8 << 10, 64, 1, 1, 100},
		{run + 500, run + f.Size(), 64, 1, 2, run + 500}, // one run is most of it
		{100_000, 130_000, 64, 2, 2, 100_000},
		{100_000, 100_000, 1, 1, 1, run},
		{150_000, 300_000, 64, 2, 2, 2 * run}, // the rest is left for the next time
		{100, room, 64, 0, 1, 100},
	} {
		go unix.Write(pair[1], make([]byte, c.sent))
		testwait.Until(t, "bytes in the socket", func() bool {
			n, err := unix.IoctlGetInt(pair[0], unix.TIOCINQ)
			return err == nil && n >= c.n
		})
		s := &Stream{Conn: conns.Conn{FD: pair[0]}, announced: announced{long: true}}
		l := w.fill(s, c.want, c.slots)
		qt.Check(t, qt.Equals(l.errno, unix.Errno(0)))
		qt.Check(t, qt.Equals(l.runs, c.runs), qt.Commentf("%+v", c))
		qt.Check(t, qt.Equals(l.used, c.used), qt.Commentf("%+v", c))
		qt.Check(t, qt.Equals(l.n, c.n), qt.Commentf("%+v", c))
		left := c.sent - l.n
		w.drop(&l)
		for left > 0 {
			n, err := unix.Read(pair[0], make([]byte, left))
			qt.Assert(t, qt.IsNil(err))
			left -= n
		}
	}
	qt.Check(t, qt.IsNil(f.Audit(func(frames.Visit) {})))
}
