package redisd

import (
	"io"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// waitBlocked waits until n clients are blocked.
func waitBlocked(t *testing.T, l *local, n int) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Millisecond) {
		l.db.Lock()
		k := l.db.Waiting()
		l.db.Unlock()
		if k == n {
			return
		}
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("%d wait, want %d", k, n))
	}
}

// An entry reaches those who wait for it, whichever ring they are on; what they
// have sent behind is answered afterwards.
func TestBlockingRead(t *testing.T) {
	for _, rings := range []int{1, 2} {
		l := open(t, 32<<20, rings, Config{})
		var waiting []*client
		for range 4 {
			c := dial(t, l.addr)
			c.do("PING")
			_, err := io.WriteString(c, request("XREAD", "BLOCK", "0", "STREAMS", "other", "s", "$", "$")+request("ECHO", "behind"))
			qt.Assert(t, qt.IsNil(err))
			waiting = append(waiting, c)
		}
		waitBlocked(t, l, 8)
		c := dial(t, l.addr)
		qt.Assert(t, qt.Equals(c.do("XADD", "s", "1-1", "f", "v"), any("1-1")))
		for _, w := range waiting {
			entry := []any{"1-1", []any{"f", "v"}}
			qt.Check(t, qt.DeepEquals(w.read(), any([]any{[]any{"s", []any{entry}}})))
			qt.Check(t, qt.Equals(w.read(), any("behind")))
		}
		waitBlocked(t, l, 0)
	}
}

// Of a group's consumers that wait one gets the entry.
func TestBlockingGroup(t *testing.T) {
	l := open(t, 32<<20, 2, Config{})
	c := dial(t, l.addr)
	c.do("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
	var waiting []*client
	for _, name := range []string{"x", "y"} {
		w := dial(t, l.addr)
		_, err := io.WriteString(w, request("XREADGROUP", "GROUP", "g", name, "BLOCK", "0", "STREAMS", "s", ">"))
		qt.Assert(t, qt.IsNil(err))
		waiting = append(waiting, w)
		waitBlocked(t, l, len(waiting))
	}
	for i, w := range waiting {
		id := []string{"1-1", "1-2"}[i]
		c.do("XADD", "s", id, "f", "v")
		entry := []any{id, []any{"f", "v"}}
		qt.Check(t, qt.DeepEquals(w.read(), any([]any{[]any{"s", []any{entry}}})))
	}
	qt.Check(t, qt.DeepEquals(c.do("XPENDING", "s", "g"), any([]any{int64(2), "1-1", "1-2", []any{[]any{"x", "1"}, []any{"y", "1"}}})))
	// Who waits for what is destroyed is told.
	_, err := io.WriteString(waiting[0], request("XREADGROUP", "GROUP", "g", "x", "BLOCK", "0", "STREAMS", "s", ">"))
	qt.Assert(t, qt.IsNil(err))
	waitBlocked(t, l, 1)
	c.do("XGROUP", "DESTROY", "s", "g")
	_, isError := waiting[0].read().(failure)
	qt.Check(t, qt.IsTrue(isError))
}

// Who waits for a group's entries is told that its stream is gone, whatever took it away.
func TestBlockingGone(t *testing.T) {
	l := open(t, 32<<20, 1, Config{})
	c, w := dial(t, l.addr), dial(t, l.addr)
	for _, by := range [][]string{{"FLUSHALL"}, {"SET", "s", "v"}, {"DEL", "s"}, {"RENAME", "other", "s"}, {"MSET", "s", "v"}, {"EXPIRE", "s", "-1"}} {
		c.do("FLUSHALL")
		c.do("SET", "other", "v")
		c.do("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
		_, err := io.WriteString(w, request("XREADGROUP", "GROUP", "g", "x", "BLOCK", "0", "STREAMS", "s", ">"))
		qt.Assert(t, qt.IsNil(err))
		waitBlocked(t, l, 1)
		c.do(by...)
		qt.Check(t, qt.Equals(w.read(), any(failure("UNBLOCKED the stream key no longer exists"))), qt.Commentf("%v", by))
	}
}

// A wait ends with its time, with CLIENT UNBLOCK, and with the client.
func TestBlockingEnds(t *testing.T) {
	l := open(t, 32<<20, 1, Config{})
	w, c := dial(t, l.addr), dial(t, l.addr)
	qt.Check(t, qt.Equals(w.do("XREAD", "BLOCK", "30", "STREAMS", "s", "$"), any(null{})))
	id := w.do("CLIENT", "ID").(int64)
	block := func() {
		_, err := io.WriteString(w, request("XREAD", "BLOCK", "0", "STREAMS", "s", "$"))
		qt.Assert(t, qt.IsNil(err))
		waitBlocked(t, l, 1)
	}
	block()
	qt.Check(t, qt.Equals(c.do("CLIENT", "UNBLOCK", itoa(id)), any(int64(1))))
	qt.Check(t, qt.Equals(w.read(), any(null{})))
	block()
	qt.Check(t, qt.Equals(c.do("CLIENT", "UNBLOCK", itoa(id), "ERROR"), any(int64(1))))
	qt.Check(t, qt.Equals(w.read(), any(failure("UNBLOCKED client unblocked via CLIENT UNBLOCK"))))
	block()
	w.Close()
	waitBlocked(t, l, 0)
}
