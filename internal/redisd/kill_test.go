package redisd

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/servertest"
)

// acked is what clients were told that it is stored.
type acked struct {
	mu      sync.Mutex
	keys    map[string]string
	fields  int
	entries int
	pairs   int
}

// load writes in bursts, until the connection ends: names of its own, a hash, a
// stream, and two counters that only a transaction changes.
func (a *acked) load(c *client, id string) {
	for n := 0; ; n++ {
		var b strings.Builder
		want := map[string]string{}
		for i := range 16 {
			k := fmt.Sprintf("%s-%d-%d", id, n, i)
			want[k] = k + strings.Repeat("v", i*i*i)
			b.WriteString(request("SET", k, want[k]))
		}
		b.WriteString(request("HSET", "hash", id+fmt.Sprint("-", n), "v"))
		b.WriteString(request("XADD", "stream", "*", "from", id))
		b.WriteString(request("MULTI") + request("INCR", "x") + request("INCRBY", "y", "1") + request("EXEC"))
		if _, err := io.WriteString(c, b.String()); err != nil {
			return
		}
		for i := range 22 {
			if _, err := c.readValue(); err != nil {
				return
			}
			a.mu.Lock()
			switch {
			case i < 16:
				k := fmt.Sprintf("%s-%d-%d", id, n, i)
				a.keys[k] = want[k]
			case i == 16:
				a.fields++
			case i == 17:
				a.entries++
			case i == 21:
				a.pairs++
			}
			a.mu.Unlock()
		}
	}
}

// TestKill kills the server in the middle of writes, again and again: nothing that
// was acknowledged is missing, and no transaction is there in part.
func TestKill(t *testing.T) {
	pool := servertest.PoolFile(t)
	p := servertest.Start(t, pool, "127.0.0.1:0")
	a := &acked{keys: map[string]string{}}
	for round := range 6 {
		var wg sync.WaitGroup
		for i := range 4 {
			c := dial(t, p.Addr)
			wg.Add(1)
			go func() {
				defer wg.Done()
				a.load(c, fmt.Sprintf("%d.%d", round, i))
			}()
		}
		time.Sleep(80 * time.Millisecond)
		p.Kill()
		wg.Wait()
		p = servertest.Start(t, pool, p.Addr)
		c := dial(t, p.Addr)
		for k, v := range a.keys {
			got := c.do("GET", k)
			qt.Assert(t, qt.IsTrue(got == any(v)), qt.Commentf("round %d: %s is %.40v", round, k, got))
		}
		x, y := c.do("GET", "x"), c.do("GET", "y")
		qt.Assert(t, qt.Equals(x, y), qt.Commentf("round %d", round))
		for what, n := range map[string]int{"HLEN hash": a.fields, "XLEN stream": a.entries, "INCRBY x 0": a.pairs} {
			got := c.words(what).(int64)
			qt.Assert(t, qt.IsTrue(got >= int64(n)), qt.Commentf("round %d: %s: %d, %d were acknowledged", round, what, got, n))
		}
		// As many fields and entries are there as are counted.
		qt.Assert(t, qt.Equals(int64(len(c.words("HKEYS hash").([]any))), c.words("HLEN hash").(int64)))
		qt.Assert(t, qt.Equals(int64(len(c.words("XRANGE stream - +").([]any))), c.words("XLEN stream").(int64)))
		c.do("FLUSHALL")
		*a = acked{keys: map[string]string{}}
	}
	p.Kill()
}
