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

// A body that comes again with the same key is stored once, with the same answer.
func TestStoredOnce(t *testing.T) {
	f := serve(t, setup{cfg: Config{Rings: 2}})
	c := f.client()
	var want []string
	for i, size := range []int{0, 5, 1000, 5000, 300_000} {
		body, key := strings.Repeat(fmt.Sprint(i), size), fmt.Sprintf(`Idempotency-Key: "key %d"`, i)
		first, header := f.ask(c, 201, "POST", "/in", body, key)
		want = append(want, body)
		qt.Check(t, qt.Equals(first, fmt.Sprintln(len(want))))
		for range 3 {
			c.CloseIdleConnections() // by another ring, perhaps
			again, h := f.ask(c, 201, "POST", "/in", body, key)
			qt.Check(t, qt.Equals(again, first))
			qt.Check(t, qt.DeepEquals(h, header))
		}
		text, _ := f.ask(c, 422, "POST", "/in", body+"x", key)
		qt.Check(t, qt.Equals(text, keyConflict))
		f.ask(c, 422, "POST", "/other", body, key)
		f.ask(c, 201, "POST", "/in", body) // without a key it is another one
		want = append(want, body)
	}
	// Quotes are only how a key is written.
	f.ask(c, 201, "POST", "/", "q", `Idempotency-Key: abc`)
	f.ask(c, 201, "PUT", "/", "q", `Idempotency-Key: "abc"`)
	f.ask(c, 422, "PUT", "/", "r", `Idempotency-Key: "abc"`)
	want = append(want, "q")
	for _, bad := range []string{`"`, `""`, `"a`, `"a"b`, `a"b`, `"a\c"`, strings.Repeat("k", 256)} {
		text, _ := f.ask(c, 400, "POST", "/", "never", "Idempotency-Key: "+bad)
		qt.Check(t, qt.StringContains(text, "1 to 255 characters"), qt.Commentf("%s", bad))
	}
	text, _ := f.ask(c, 200, "GET", "/log/status", "")
	qt.Check(t, qt.StringContains(text, `"idempotency_keys":{"kept":6,"most":8192,"window_seconds":86400}`))
	qt.Check(t, qt.DeepEquals(f.records(), want))
	qt.Check(t, qt.Equals(f.srv.Stats().Repeated, 5*3+5*2+2))
	qt.Check(t, qt.Equals(f.srv.Stats().Stored, uint64(len(want))))
}

// Of many that come at once, one is stored.
func TestStoredOnceAtOnce(t *testing.T) {
	f := serve(t, setup{cfg: Config{Rings: 2}})
	var wg sync.WaitGroup
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := f.client()
			for i := range 20 {
				text, _ := f.ask(c, 201, "POST", "/", fmt.Sprint("body ", i), fmt.Sprint("Idempotency-Key: ", i))
				qt.Check(t, qt.Not(qt.Equals(text, "")))
			}
		}()
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, r := range f.records() {
		qt.Check(t, qt.IsFalse(seen[r]), qt.Commentf("%s", r))
		seen[r] = true
	}
	qt.Check(t, qt.HasLen(seen, 20))
}

// A retry is answered also when nothing can be stored any more, and after its record
// was dropped.
func TestStoredOnceFull(t *testing.T) {
	f := serve(t, setup{poolSize: 8 << 20})
	c := f.client()
	body := strings.Repeat("b", 200_000)
	first, _ := f.ask(c, 201, "POST", "/", body, "Idempotency-Key: a")
	for n := 0; ; n++ {
		resp, err := c.Post("http://"+f.addr+"/", "", strings.NewReader(body[n:]))
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		if resp.StatusCode == 507 {
			break
		}
		qt.Assert(t, qt.Equals(resp.StatusCode, 201))
	}
	again, _ := f.ask(c, 201, "POST", "/", body, "Idempotency-Key: a")
	qt.Check(t, qt.Equals(again, first))
}

func TestNothingStoredOnce(t *testing.T) {
	f := serve(t, setup{cfg: Config{Persist: PersistNone}})
	f.ask(f.client(), 501, "POST", "/", "x", "Idempotency-Key: a")
}

// Beyond the window a body is stored anew.
func TestStoredOnceWithin(t *testing.T) {
	now := time.Unix(1e6, 0)
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	f := serve(t, setup{cfg: Config{Keys: intake.Options{Window: time.Hour, Now: clock}}})
	c := f.client()
	f.ask(c, 201, "POST", "/", "x", "Idempotency-Key: a")
	mu.Lock()
	now = now.Add(time.Hour)
	mu.Unlock()
	text, _ := f.ask(c, 201, "POST", "/", "x", "Idempotency-Key: a")
	qt.Check(t, qt.Equals(text, "2\n"))
}
