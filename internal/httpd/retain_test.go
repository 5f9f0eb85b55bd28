package httpd

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/intake"
)

func (f *fixture) oldest() uint64 { return f.pool.Log().Head() }

// No more payload than the limit is kept, but for what a cursor protects.
func TestRetainSize(t *testing.T) {
	f := serve(t, setup{cfg: Config{Retain: Retention{Bytes: 1000}, Rings: 2}})
	c := f.client()
	post := func(n int) {
		for range n {
			f.ask(c, 201, "POST", "/", strings.Repeat("x", 100))
		}
	}
	post(25)
	eventually(t, "ten records are left", func() bool { return f.oldest() == 16 })
	f.ask(c, 201, "PUT", "/log/cursors/slow", "")
	post(5)
	qt.Check(t, qt.Equals(f.oldest(), 16))
	text, _ := f.ask(c, 200, "GET", "/log/status", "")
	qt.Check(t, qt.StringContains(text, `"retention":{"bytes":1000,"withheld":5}`))
	f.ask(c, 200, "POST", "/log/cursors/slow?ack=17", "")
	eventually(t, "what is acknowledged goes", func() bool { return f.oldest() == 18 })
	f.ask(c, 204, "DELETE", "/log/cursors/slow", "")
	eventually(t, "all that is too much goes", func() bool { return f.oldest() == 21 })
	// A cursor that does not protect is told.
	f.ask(c, 201, "PUT", "/log/cursors/free?protect=no", "")
	post(3)
	eventually(t, "ten records are left", func() bool { return f.oldest() == 24 })
	text, _ = f.ask(c, 410, "GET", "/log/cursors/free/records", "")
	qt.Check(t, qt.Equals(text, "record 21 was dropped; the oldest is 24; cursor \"free\" goes on from there when 23 is acknowledged\n"))
	qt.Check(t, qt.Equals(f.cursor(c, 200, "GET", "/log/cursors/free").Lost, 3))
	f.ask(c, 200, "POST", "/log/cursors/free?ack=23", "")
	_, header := f.ask(c, 200, "GET", "/log/cursors/free/records", "")
	qt.Check(t, qt.Equals(header.Get("X-Paste-First"), "24"))
}

// Records go by their age, without anybody asking.
func TestRetainAge(t *testing.T) {
	var mu sync.Mutex
	now := time.Unix(1e6, 0)
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	f := serve(t, setup{cfg: Config{Retain: Retention{Age: time.Minute}, Keys: intake.Options{Now: clock}}})
	c := f.client()
	for range 10 {
		f.ask(c, 201, "POST", "/", "x")
		mu.Lock()
		now = now.Add(10 * time.Second)
		mu.Unlock()
	}
	// The last one was there 10 seconds ago, the one before 20 ...
	eventually(t, "five records are left", func() bool { return f.oldest() == 6 })
	mu.Lock()
	now = now.Add(time.Hour)
	mu.Unlock()
	eventually(t, "none is left", func() bool { return f.oldest() == 11 })
}

// What all cursors have acknowledged goes, and nothing as long as there is none.
func TestDropRead(t *testing.T) {
	f := serve(t, setup{cfg: Config{Retain: Retention{Read: true}}})
	c := f.client()
	f.fill(c, 1, 2, 3, 4, 5)
	f.ask(c, 201, "PUT", "/log/cursors/a", "")
	f.ask(c, 201, "PUT", "/log/cursors/b?protect=no", "")
	f.ask(c, 200, "POST", "/log/cursors/a?ack=4", "")
	qt.Check(t, qt.Equals(f.oldest(), 1))
	f.ask(c, 200, "POST", "/log/cursors/b?ack=3", "")
	eventually(t, "three records are gone", func() bool { return f.oldest() == 4 })
	qt.Check(t, qt.Equals(f.cursor(c, 200, "GET", "/log/cursors/a").Next, 5))
}

// A log that wraps refuses, and says why, before it drops what a cursor protects; and
// goes on when the cursor does, though the pool is full.
func TestWrapProtected(t *testing.T) {
	f := serve(t, setup{poolSize: 8 << 20, cfg: Config{OnFull: Wrap}})
	c := f.client()
	f.ask(c, 201, "PUT", "/log/cursors/slow", "")
	body := strings.Repeat("b", 100_000)
	var last int
	for {
		resp, err := c.Post("http://"+f.addr+"/", "", strings.NewReader(body))
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		if resp.StatusCode != 201 {
			qt.Assert(t, qt.Equals(resp.StatusCode, 507))
			break
		}
		last++
	}
	for { // with small ones to the last frame
		resp, err := c.Post("http://"+f.addr+"/", "", strings.NewReader("small"))
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		if resp.StatusCode != 201 {
			break
		}
		last++
	}
	text, _ := f.ask(c, 507, "POST", "/", body)
	qt.Check(t, qt.Equals(text, "no room in the pool: cursor \"slow\" protects the records from 1 on; acknowledge them, or delete it\n"))
	text, _ = f.ask(c, 503, "GET", "/readyz", "")
	qt.Check(t, qt.StringContains(text, "the pool is full: cursor \"slow\" protects"))
	qt.Check(t, qt.Equals(f.oldest(), 1))
	for i := range 4 {
		f.cursor(c, 200, "POST", fmt.Sprintf("/log/cursors/slow?ack=%d", last*(i+1)/4))
	}
	f.ask(c, 201, "POST", "/", body)
	qt.Check(t, qt.IsTrue(f.oldest() > 1))
}
