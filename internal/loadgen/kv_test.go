package loadgen

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestResponsesOfRedis(t *testing.T) {
	type want struct {
		status int
		length int64
	}
	all := "+OK\r\n$5\r\nhello\r\n$-1\r\n-ERR no\r\n$0\r\n\r\n"
	wants := []want{{200, 0}, {200, 5}, {404, 0}, {500, 0}, {200, 0}}
	ends := []int{5, 16, 21, 30, 36}
	for step := 1; step < 12; step++ {
		var r response
		at := 0
		for i, end := range ends {
			for at < end {
				n := min(step, end-at)
				done, err := r.feedRESP([]byte(all[at : at+n]))
				qt.Assert(t, qt.IsNil(err))
				at += n
				qt.Assert(t, qt.Equals(done, at == end), qt.Commentf("step %d, byte %d", step, at))
			}
			qt.Assert(t, qt.Equals(want{r.status, r.length}, wants[i]))
		}
	}
	for _, bad := range []string{"*1\r\n", "$x\r\n", "$-2\r\n", "OK\r\n", "+OK\n", "+OK\r\n+", "$1\r\nab\r\n", strings.Repeat("+", 20000)} {
		var r response
		_, err := r.feedRESP([]byte(bad))
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%.20q", bad))
	}
}

// The most popular of the keys gets the share that the distribution gives it.
func TestKeysAreDrawnByZipf(t *testing.T) {
	const n, draws = 1000, 200000
	k := newKeys(&KVConfig{Keys: n, Theta: 0.99})
	count := map[uint64]int{}
	for range draws {
		d := k.draw()
		qt.Assert(t, qt.IsTrue(d < n), qt.Commentf("%v, %v", d, n))
		count[d]++
	}
	share := float64(count[0]) / draws
	qt.Assert(t, qt.IsTrue(share > 0.9/k.zetan && share < 1.1/k.zetan), qt.Commentf("%g, want %g", share, 1/k.zetan))
	k = newKeys(&KVConfig{Keys: n})
	last := k.draw()
	qt.Assert(t, qt.IsTrue(last < n), qt.Commentf("%d of %d", last, n))
}

func TestKVRequests(t *testing.T) {
	g := &generator{Config: Config{Workload: KV, Connections: 2, Size: 40, KV: KVConfig{Keys: 7, Preload: true}}}
	qt.Assert(t, qt.IsNil(g.build()))
	defer func() { g.Live = new(Live); g.free() }()
	for i := range 8 {
		b := string(g.nextRequest(&g.conns[i%2]))
		head := fmt.Sprintf("PUT /k/key:%012d HTTP/1.1\r\nHost: paste\r\nContent-Length: 40\r\n\r\n", i%7)
		qt.Assert(t, qt.IsTrue(strings.HasPrefix(b, head)), qt.Commentf("%q", b))
		_, conn, _, err := ParseBody([]byte(b[len(head):]))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(conn, i%2))
	}
	g.KV.Preload, g.KV.PutPercent = false, 0
	qt.Assert(t, qt.Matches(string(g.nextRequest(&g.conns[0])), `GET /k/key:[0-9]{12} HTTP/1.1\r\nHost: paste\r\n\r\n`))
}
