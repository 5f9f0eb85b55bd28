package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/serve"
	"github.com/pastenet/paste/pasteapi"
)

// portOf is what `status` says of the port of this process over a pool.
func portOf(t *testing.T, pool string) pasteapi.LivePort {
	t.Helper()
	ports, err := pasteapi.ListPorts(t.Context())
	i := slices.IndexFunc(ports, func(p pasteapi.LivePort) bool { return p.PID == os.Getpid() && p.Status.Pool.Path == pool })
	qt.Assert(t, qt.IsTrue(i >= 0), qt.Commentf("no port over %s among %d: %v", pool, len(ports), err))
	return ports[i]
}

// A server without an interface shows in status, with requests, errors, keys, batches
// and commits.
func TestStatusOfServers(t *testing.T) {
	for _, kind := range []string{"http", "kv", "redis"} {
		pool := filepath.Join(serveDir(t), "pool")
		ctx, cancel := context.WithCancel(t.Context())
		events, done := serving(ctx, t, kind, "--listen", "127.0.0.1:0", "--pool", pool, "--pool-size", "32MiB")
		ready := next(t, events)
		qt.Assert(t, qt.Equals(ready.Event, serve.Ready))
		want := map[string]uint64{"requests": 2, "malformed": 0}
		switch kind {
		case "kv":
			want["keys"], want["puts"] = 2, 2
		case "http":
			want["stored"] = 2
		case "redis":
			want = map[string]uint64{"commands": 2, "keys": 2}
		}
		for _, key := range []string{"a", "b"} {
			if kind == "redis" {
				out, err := exec.Command("redis-cli", "-u", ready.URL, "set", key, "value").CombinedOutput()
				qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
				continue
			}
			r, err := http.NewRequest(http.MethodPut, ready.URL+"/k/"+key, strings.NewReader("value"))
			qt.Assert(t, qt.IsNil(err))
			resp, err := http.DefaultClient.Do(r)
			qt.Assert(t, qt.IsNil(err))
			resp.Body.Close()
			qt.Assert(t, qt.Equals(resp.StatusCode, http.StatusCreated))
		}
		http.DefaultClient.CloseIdleConnections()

		p := portOf(t, pool)
		qt.Check(t, qt.Equals(p.Status.App.Name, kind))
		qt.Check(t, qt.Equals(p.Status.App.URL, ready.URL))
		for name, n := range want {
			qt.Check(t, qt.Equals(p.Status.App.Counters[name], n), qt.Commentf("%s %s", kind, name))
		}
		qt.Check(t, qt.IsTrue(p.Status.Commits.Count >= 2), qt.Commentf("%v", p.Status.Commits))
		qt.Check(t, qt.IsTrue(p.Status.Batches.Count >= 2), qt.Commentf("%v", p.Status.Batches))
		qt.Check(t, qt.IsTrue(p.Status.Pool.LogUsed > 0))

		var text strings.Builder
		cmd := newStatusCmd(env{stdout: &text, stderr: io.Discard})
		cmd.SetArgs(nil)
		qt.Assert(t, qt.IsNil(cmd.ExecuteContext(t.Context())))
		for _, words := range []string{"no interface", "application    " + kind, "commits        ", "log            "} {
			qt.Check(t, qt.StringContains(text.String(), words))
		}
		cancel()
		qt.Check(t, qt.Equals(next(t, events).Event, serve.Stopped))
		qt.Assert(t, qt.IsNil(within(done)))
	}
}
