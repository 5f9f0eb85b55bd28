package tests

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/childproc"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/seed"
	"github.com/pastenet/paste/internal/tlsring/tlstest"
)

// example builds a program of examples/ and starts it in the lab's server namespace, in
// a directory of its own.
func example(t *testing.T, l *netlab.Lab, name, dir string, args ...string) *childproc.Process {
	t.Helper()
	exe := filepath.Join(t.TempDir(), name)
	out, err := newLocal("go", "build", "-o", exe, "github.com/pastenet/paste/examples/"+name).CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	cmd := l.ServerCommand(context.Background(), exe, args...)
	cmd.Dir = dir
	p, err := childproc.Start(cmd)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(p.Kill)
	waitFor(t, func() bool { return strings.Contains(p.Said(), "listening on") || !p.Running() })
	qt.Assert(t, qt.IsTrue(p.Running()), qt.Commentf("%s", p.Said()))
	return p
}

// client runs a program in the lab's client namespace, and returns what it printed.
func client(t *testing.T, l *netlab.Lab, name string, args ...string) string {
	t.Helper()
	out, err := l.ClientCommand(context.Background(), name, args...).CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s %q: %s", name, args, out))
	return string(out)
}

// TestHTTPServerExample: curl, wrk and h2load are served by net/http over rings, with and
// without a steered NIC, TLS and HTTP/2; and it ends in order.
func TestHTTPServerExample(t *testing.T) {
	for _, way := range []string{"steered", "auto", "copied"} {
		t.Run(way, func(t *testing.T) {
			l := newLab(t, netlab.Config{})
			dir := t.TempDir()
			body := make([]byte, 3<<20)
			rng := seed.New(t)
			for i := range body {
				body[i] = byte(rng.Uint32())
			}
			file := filepath.Join(dir, "file")
			qt.Assert(t, qt.IsNil(os.WriteFile(file, body, 0o600)))
			addr := net.JoinHostPort(l.ServerIP4.String(), "8080")

			p := example(t, l, "httpserver", dir, "-nic", l.ServerDev, "-receive", way, "-listen", addr)
			url := "http://" + addr
			qt.Check(t, qt.StringContains(client(t, l, "curl", "-sS", url), "by HTTP/1.1"))
			qt.Check(t, qt.Equals(client(t, l, "curl", "-sS", url+"/files/file") == string(body), true))
			qt.Check(t, qt.Equals(client(t, l, "curl", "-sS", "--data-binary", "@"+file, url) == string(body), true))
			wrked(t, client(t, l, "wrk", "-t1", "-c50", "-d1s", "--timeout", "3m", url))
			qt.Check(t, qt.IsNil(p.Stop()), qt.Commentf("%s", p.Said()))

			cert, key := tlstest.Files(t)
			p = example(t, l, "httpserver", dir, "-nic", l.ServerDev, "-receive", way, "-listen", addr, "-tls-cert", cert, "-tls-key", key)
			url = "https://" + addr
			qt.Check(t, qt.StringContains(client(t, l, "curl", "-sSk", url), "by HTTP/2.0"))
			qt.Check(t, qt.StringContains(client(t, l, "curl", "-sSk", "--http1.1", url), "by HTTP/1.1"))
			qt.Check(t, qt.Equals(client(t, l, "curl", "-sSk", "--data-binary", "@"+file, url) == string(body), true))
			wrked(t, client(t, l, "wrk", "-t1", "-c50", "-d1s", "--timeout", "3m", url))
			out := client(t, l, "h2load", "-n", "5000", "-c", "20", "-m", "10", url)
			qt.Check(t, qt.StringContains(out, "5000 succeeded, 0 failed, 0 errored, 0 timeout"))
			out = client(t, l, "h2load", "-n", "40", "-c", "10", "-m", "4", "-d", file, url)
			qt.Check(t, qt.StringContains(out, "40 succeeded, 0 failed, 0 errored, 0 timeout"))
			qt.Check(t, qt.IsNil(p.Stop()), qt.Commentf("%s", p.Said()))
		})
	}
}

// wrked looks at what wrk printed: it got answers, and no errors.
func wrked(t *testing.T, out string) {
	t.Helper()
	m := regexp.MustCompile(`(\d+) requests in`).FindStringSubmatch(out)
	qt.Assert(t, qt.HasLen(m, 2), qt.Commentf("%s", out))
	n, err := strconv.Atoi(m[1])
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(n > 0), qt.Commentf("%s", out))
	qt.Check(t, qt.Equals(bytes.Contains([]byte(out), []byte("Socket errors")), false), qt.Commentf("%s", out))
	qt.Check(t, qt.Equals(strings.Contains(out, "Non-2xx"), false), qt.Commentf("%s", out))
}
