package tests

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
)

// TestBrokerExample: what was acknowledged to publishers reaches subscribers whole and in
// order, also one who comes after kill -9.
func TestBrokerExample(t *testing.T) {
	l := newLab(t, netlab.Config{})
	addr, pool := net.JoinHostPort(l.ServerIP4.String(), "7070"), poolFile(t)
	dial := func() (net.Conn, *bufio.Reader) {
		c, err := l.Client.DialContext(context.Background(), "tcp", addr)
		qt.Assert(t, qt.IsNil(err))
		t.Cleanup(func() { c.Close() })
		qt.Assert(t, qt.IsNil(c.SetDeadline(time.Now().Add(patience))))
		return c, bufio.NewReader(c)
	}
	message := func(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "message %d;", i), 1+i*i%400) }
	receive := func(r *bufio.Reader, from, to int) {
		t.Helper()
		for i := from; i <= to; i++ {
			var seq, n int
			_, err := fmt.Fscanf(r, "MSG %d %d\n", &seq, &n)
			qt.Assert(t, qt.IsNil(err))
			got := make([]byte, n)
			_, err = io.ReadFull(r, got)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(seq, i))
			qt.Assert(t, qt.Equals(bytes.Equal(got, message(i)), true), qt.Commentf("message %d", i))
		}
	}
	first := 1
	for round := range 2 {
		p := example(t, l, "broker", t.TempDir(), "-nic", l.ServerDev, "-listen", addr, "-pool", pool)
		early, r := dial()
		fmt.Fprintln(early, "SUB", 1)
		pub, acks := dial()
		for i := first; i < first+200; i++ {
			m := message(i)
			_, err := fmt.Fprintf(pub, "PUB %d\n%s", len(m), m)
			qt.Assert(t, qt.IsNil(err))
			ack, err := acks.ReadString('\n')
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(ack, fmt.Sprintf("OK %d\n", i)))
		}
		first += 200
		receive(r, 1, first-1)
		if round == 0 {
			p.Kill()
			continue
		}
		late, r := dial()
		fmt.Fprintln(late, "SUB", 300)
		receive(r, 300, first-1)
		bad, r := dial()
		fmt.Fprintln(bad, "GET / HTTP/1.1")
		text, err := r.ReadString('\n')
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.StringContains(text, "ERR want PUB"))
		qt.Check(t, qt.IsNil(p.Stop()), qt.Commentf("%s", p.Said()))
	}
}
