package redisd

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// TestProtocolAsRedis sends what is no good request, or one in pieces, to both
// servers, and compares all bytes that come back until the connection ends.
func TestProtocolAsRedis(t *testing.T) {
	ours, theirs := open(t, 64<<20, 1, Config{MaxBulk: 16 << 20}), reference(t)
	for _, raw := range []string{
		"PING\r\n", "PING\n", "\r\n\r\nPING\r\n", "  ping  \r\n", "SET a \"x y\"\r\nGET a\r\n", "SET a \"x\"y\r\n", "SET a 'x\r\n",
		"GET\r\n", "*0\r\nPING\r\n", "*-1\r\nPING\r\n", "*a\r\n", "*1a\r\n", "*1\r\nPING\r\n", "*1\r\n:1\r\n",
		"*1\r\n$-1\r\n", "*1\r\n$a\r\n", "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n", "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
		"*1\r\n$536870913\r\n", "*1\r\n$99999999999999\r\n", "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$3\r\nabc\r\nGET a\r\n",
		"SET k \"\\x41\\n\\\"\"\r\nGET k\r\n", "*2\r\n$3\r\nGET\r\n+a\r\n", strings.Repeat("x", 70000), "QUIT\r\nPING\r\n",
		"MULTI\r\nSET a 1\r\nGET a\r\nEXEC\r\n", "CLIENT REPLY OFF\r\nPING\r\nCLIENT REPLY ON\r\nPING\r\n", "CLIENT REPLY SKIP\r\nPING\r\nPING\r\n",
		"HELLO 3\r\nGET nothing\r\nQUIT\r\n" + "",
	} {
		want := exchange(t, theirs, raw, len(raw))
		for _, step := range []int{len(raw), 1 + len(raw)/3, 1} {
			if len(raw) > 1000 && step == 1 {
				continue
			}
			if got := exchange(t, ours.addr, raw, step); mask(got) != mask(want) {
				t.Errorf("%.80q in pieces of %d:\n we: %.200q\nthey: %.200q", raw, step, got, want)
			}
		}
	}
}

// mask blanks the client's number in the answer to HELLO.
func mask(s string) string {
	head, tail, ok := strings.Cut(s, "$2\r\nid\r\n:")
	if !ok {
		return s
	}
	_, tail, _ = strings.Cut(tail, "\r\n")
	return head + tail
}

// exchange sends raw, step bytes at a time, says that this is all, and returns what
// comes back.
func exchange(t *testing.T, addr, raw string, step int) string {
	c, err := net.Dial("tcp", addr)
	qt.Assert(t, qt.IsNil(err))
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Minute))
	for len(raw) > 0 {
		n := min(step, len(raw))
		if _, err := io.WriteString(c, raw[:n]); err != nil {
			break // it has ended the connection
		}
		raw = raw[n:]
	}
	c.(*net.TCPConn).CloseWrite()
	b, _ := io.ReadAll(c) // a reset, after an error, is as good as an end
	return string(b)
}

// Many commands at once, with long values, are answered in order to a client that
// reads them late.
func TestPipeline(t *testing.T) {
	l := open(t, 128<<20, 1, Config{})
	c := dial(t, l.addr)
	rng := rand.New(rand.NewPCG(1, 2))
	values := map[string]string{}
	const n = 3000
	order := make([]string, n)
	go func() {
		r := rand.New(rand.NewPCG(1, 2))
		for i := range n {
			io.WriteString(c, request("SET", fmt.Sprint("k", r.IntN(50)), value(r, i))+request("GET", fmt.Sprint("k", r.IntN(50))))
		}
	}()
	for i := range n {
		k := fmt.Sprint("k", rng.IntN(50))
		values[k] = value(rng, i)
		order[i] = fmt.Sprint("k", rng.IntN(50))
		if i == 10 {
			time.Sleep(200 * time.Millisecond) // answers pile up
		}
		qt.Assert(t, qt.Equals(c.read(), any(status("OK"))))
		want, ok := values[order[i]]
		got := c.read()
		if !ok {
			qt.Assert(t, qt.Equals(got, any(null{})))
			continue
		}
		qt.Assert(t, qt.IsTrue(got == any(want)), qt.Commentf("%d: %.30q", i, got))
	}
}

func value(r *rand.Rand, i int) string {
	return fmt.Sprintf("%d:%s", i, strings.Repeat("v", []int{1, 40, 300, 1024, 5000, 40000, 300000}[r.IntN(7)]))
}

// A password is asked for, and nothing is answered before.
func TestAuth(t *testing.T) {
	l := open(t, 32<<20, 1, Config{Password: "secret"})
	c := dial(t, l.addr)
	for _, line := range []string{"GET a", "SET a 1", "PING", "MULTI", "HELLO 3", "CLIENT ID"} {
		_, refused := c.words(line).(failure)
		qt.Check(t, qt.IsTrue(refused), qt.Commentf("%s", line))
	}
	qt.Check(t, qt.Equals(c.words("AUTH wrong"), any(failure("WRONGPASS invalid username-password pair or user is disabled."))))
	qt.Check(t, qt.Equals(c.words("AUTH secret"), any(status("OK"))))
	qt.Check(t, qt.Equals(c.words("PING"), any(status("PONG"))))
	qt.Check(t, qt.Equals(c.words("RESET"), any(status("RESET"))))
	_, refused := c.words("PING").(failure)
	qt.Check(t, qt.IsTrue(refused))
	_, ok := c.words("HELLO 3 AUTH default secret").(pairs)
	qt.Check(t, qt.IsTrue(ok))
	big := dial(t, l.addr)
	_, err := io.WriteString(big, "*11\r\n")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(big.read(), any(failure("ERR Protocol error: unauthenticated multibulk length"))))
}

// More connections than allowed are told so.
func TestTooManyClients(t *testing.T) {
	l := open(t, 32<<20, 1, Config{MaxConns: 2})
	a, b := dial(t, l.addr), dial(t, l.addr)
	a.do("PING")
	b.do("PING")
	qt.Check(t, qt.Equals(dial(t, l.addr).read(), any(failure("ERR max number of clients reached"))))
	qt.Check(t, qt.Equals(a.do("PING"), any(status("PONG"))))
}

// A client that does not complete its command, or does not read, is ended; one that
// only waits is not.
func TestStalled(t *testing.T) {
	l := open(t, 64<<20, 1, Config{StallTimeout: 100 * time.Millisecond})
	idle, half, deaf := dial(t, l.addr), dial(t, l.addr), dial(t, l.addr)
	idle.do("SET", "big", strings.Repeat("x", 1<<20))
	_, err := io.WriteString(half, "*2\r\n$3\r\nGET\r\n$5\r\nab")
	qt.Assert(t, qt.IsNil(err))
	_, err = io.WriteString(deaf, strings.Repeat(request("GET", "big"), 30))
	qt.Assert(t, qt.IsNil(err))
	_, err = half.r.ReadByte()
	qt.Check(t, qt.IsNotNil(err))
	for end := time.Now().Add(3 * time.Minute); l.srv.Stats().TimedOut < 2; time.Sleep(5 * time.Millisecond) {
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("%+v", l.srv.Stats()))
	}
	qt.Check(t, qt.Equals(idle.do("PING"), any(status("PONG"))))
}
