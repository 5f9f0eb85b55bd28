package redisd

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/redisd/store"
	"github.com/pastenet/paste/internal/servertest"
	"github.com/pastenet/paste/pmem"
)

// fill stores values until there is no room, and returns how many there are.
func fill(t *testing.T, c *client, prefix string, size int, more ...string) (n int) {
	t.Helper()
	for {
		switch v := c.do(append([]string{"SET", fmt.Sprint(prefix, n), strings.Repeat("x", size)}, more...)...).(type) {
		case status:
			n++
		case failure:
			qt.Assert(t, qt.Equals(v, failure("OOM command not allowed when used memory > 'maxmemory'.")))
			return n
		default:
			t.Fatal(v)
		}
	}
}

// When the pool is full, what needs room is refused, everything is served, and
// DEL makes room, as does FLUSHALL.
func TestFull(t *testing.T) {
	l := open(t, 8<<20, 1, Config{})
	c := dial(t, l.addr)
	for _, size := range []int{100, 3000, 70000} {
		first := fill(t, c, "k", size)
		qt.Assert(t, qt.IsTrue(first > 20), qt.Commentf("%d of %d bytes", first, size))
		qt.Check(t, qt.Equals(c.do("GET", "k0"), any(strings.Repeat("x", size))))
		qt.Check(t, qt.Equals(c.do("DBSIZE"), any(int64(first))))
		_, refused := c.do("MSET", "a", strings.Repeat("y", size), "b", strings.Repeat("y", 10*size+100000)).(failure)
		qt.Check(t, qt.IsTrue(refused))
		qt.Check(t, qt.Equals(c.do("EXISTS", "a", "b"), any(int64(0))))
		for i := range first {
			qt.Assert(t, qt.Equals(c.do("DEL", fmt.Sprint("k", i)), any(int64(1))))
		}
		second := fill(t, c, "k", size)
		qt.Check(t, qt.IsTrue(second > first*9/10), qt.Commentf("%d of %d bytes, then %d", first, size, second))
		qt.Check(t, qt.Equals(c.do("FLUSHALL"), any(status("OK"))))
	}
}

// What has expired gives its room back, without being asked for.
func TestExpiryGivesBack(t *testing.T) {
	l := open(t, 8<<20, 1, Config{})
	c := dial(t, l.addr)
	// Long enough for the pool to be full before the first one goes.
	first := fill(t, c, "k", 3000, "PX", "8000")
	for end := time.Now().Add(3 * time.Minute); c.do("DBSIZE") != any(int64(0)); time.Sleep(10 * time.Millisecond) {
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)))
	}
	second := 0
	for second < first/2 {
		if _, ok := c.do("SET", fmt.Sprint("n", second), strings.Repeat("x", 3000)).(status); !ok {
			break
		}
		second++
	}
	qt.Check(t, qt.Equals(second, first/2))
	// A hash that is deleted does so, too.
	c.do("FLUSHALL")
	for i := range 1000 {
		c.do("HSET", "h", fmt.Sprint("f", i), strings.Repeat("x", 2000))
	}
	c.do("DEL", "h")
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		l.db.Lock()
		idle := l.db.Idle()
		l.db.Unlock()
		if idle {
			break
		}
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)))
	}
	qt.Check(t, qt.IsTrue(fill(t, c, "k", 3000) > first*8/10))
}

// All is there after a restart, with its times; a pool of others is refused.
func TestReopen(t *testing.T) {
	path := servertest.PoolFile(t)
	pool, err := pmem.Create(path, pmem.Options{Size: 16 << 20})
	qt.Assert(t, qt.IsNil(err))
	db, err := store.Open(pool, true)
	qt.Assert(t, qt.IsNil(err))
	db.Set([]byte("a"), db.Find([]byte("a")), []byte("1"), 0)
	qt.Assert(t, qt.IsTrue(db.Apply()))
	db.Set([]byte("b"), db.Find([]byte("b")), []byte(strings.Repeat("x", 5000)), db.Now+1e9)
	qt.Assert(t, qt.IsTrue(db.Apply()))
	at := db.Now + 1e9
	qt.Assert(t, qt.IsNil(db.Close()))
	qt.Assert(t, qt.IsNil(pool.Close()))
	pool, err = pmem.Open(path, pmem.Options{})
	qt.Assert(t, qt.IsNil(err))
	db, err = store.Open(pool, true)
	qt.Assert(t, qt.IsNil(err))
	it := db.Find([]byte("b"))
	qt.Check(t, qt.Equals(it.At, at))
	qt.Check(t, qt.Equals(it.Len(), 5000))
	qt.Check(t, qt.Equals(db.Len(), uint64(2)))
	qt.Check(t, qt.Equals(db.Expires(), uint64(1)))
	qt.Assert(t, qt.IsNil(db.Close()))
	qt.Assert(t, qt.IsNil(pool.Close()))

	pool, err = pmem.NewMemory("foreign", pmem.Options{Size: 16 << 20})
	qt.Assert(t, qt.IsNil(err))
	defer pool.Close()
	qt.Assert(t, qt.IsNil(pool.Claim("kv")))
	_, err = store.Open(pool, true)
	qt.Check(t, qt.ErrorIs(err, pmem.ErrPurpose))
}
