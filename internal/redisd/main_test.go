package redisd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"go.uber.org/goleak"

	"github.com/pastenet/paste/internal/redisd/store"
	"github.com/pastenet/paste/internal/servertest"
	"github.com/pastenet/paste/internal/tlsring"
	"github.com/pastenet/paste/internal/tlsring/tlstest"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

func TestMain(m *testing.M) {
	servertest.Main(child)
	goleak.VerifyTestMain(m)
}

// local is a server on the loopback device, without a NIC.
type local struct {
	srv  *Server
	db   *store.DB
	addr string
}

// open runs a server over a pool in memory, until the test ends; of an encrypted one the
// clients speak TLS (tlstest.Client).
func open(t testing.TB, size int64, rings int, cfg Config) *local {
	t.Helper()
	pool, err := pmem.NewMemory("redisd-test", pmem.Options{Size: size})
	qt.Assert(t, qt.IsNil(err))
	db, err := store.Open(pool, true)
	qt.Assert(t, qt.IsNil(err))
	cfg.Addr, cfg.Logger, cfg.Verify = "127.0.0.1:0", slog.New(slog.DiscardHandler), true
	srv, err := New(cfg, db)
	qt.Assert(t, qt.IsNil(err))
	port, err := pasteapi.Open(context.Background(), pasteapi.Options{Pool: pool, Rings: rings, Logger: cfg.Logger})
	qt.Assert(t, qt.IsNil(err))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var all []Ring
	var secure []*tlsring.Ring
	for i := range rings {
		if !cfg.Encrypted {
			all = append(all, port.Ring(i))
			continue
		}
		r, err := tlsring.New(port.Ring(i), pool, tlstest.Server())
		qt.Assert(t, qt.IsNil(err))
		all, secure = append(all, r), append(secure, r)
	}
	go func() { done <- srv.Run(ctx, all...) }()
	t.Cleanup(func() {
		cancel()
		qt.Check(t, qt.IsNil(<-done))
		for _, r := range secure {
			qt.Check(t, qt.IsNil(r.Close()))
		}
		qt.Check(t, qt.IsNil(port.Close()))
		qt.Check(t, qt.IsNil(db.Close()))
		qt.Check(t, qt.Equals(pool.Misuses(), 0))
		qt.Check(t, qt.IsNil(pool.Close()))
	})
	return &local{srv: srv, db: db, addr: srv.Addr().String()}
}

// client speaks RESP by hand.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	return &client{t, c, bufio.NewReader(c)}
}

// request renders a command.
func request(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// do sends a command and returns the answer; see read.
func (c *client) do(args ...string) any {
	c.t.Helper()
	_, err := io.WriteString(c, request(args...))
	qt.Assert(c.t, qt.IsNil(err))
	return c.read()
}

// words is do of a line of words.
func (c *client) words(line string) any {
	c.t.Helper()
	return c.do(strings.Fields(line)...)
}

// null is the answer that is nothing, and failure one that is an error.
type (
	null    struct{}
	failure string
	status  string
	double  string
	pairs   []any
)

// read reads one answer: an int64, a string, one of the above, or a []any.
func (c *client) read() any {
	c.t.Helper()
	v, err := c.readValue()
	qt.Assert(c.t, qt.IsNil(err))
	return v
}

func (c *client) readValue() (any, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	rest := strings.TrimSuffix(line[1:], "\r\n")
	switch line[0] {
	case '+':
		return status(rest), nil
	case '-':
		return failure(rest), nil
	case '_':
		return null{}, nil
	case ',':
		return double(rest), nil
	case ':':
		return strconv.ParseInt(rest, 10, 64)
	}
	n, err := strconv.Atoi(rest)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", line, err)
	}
	if n < 0 {
		return null{}, nil
	}
	switch line[0] {
	case '$', '=':
		b := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, b); err != nil {
			return nil, err
		}
		return string(b[:n]), nil
	case '%':
		n *= 2
	case '*', '~':
	default:
		return nil, fmt.Errorf("unexpected %q", line)
	}
	list := make([]any, n)
	for i := range list {
		if list[i], err = c.readValue(); err != nil {
			return nil, err
		}
	}
	if line[0] == '%' {
		return pairs(list), nil
	}
	return list, nil
}
