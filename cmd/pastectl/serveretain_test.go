package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/serve"
)

// withServeHTTP runs `serve http` over a pool while fn runs.
func withServeHTTP(t *testing.T, pool string, flags []string, fn func(ask func(method, path, body string, fields ...string) string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, done := serving(ctx, t, append([]string{"http", "--listen", "127.0.0.1:0", "--pool", pool}, flags...)...)
	ready := next(t, events)
	qt.Assert(t, qt.Equals(ready.Event, serve.Ready))
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	fn(func(method, path, body string, fields ...string) string {
		t.Helper()
		req, err := http.NewRequest(method, ready.URL+path, strings.NewReader(body))
		qt.Assert(t, qt.IsNil(err))
		for i := 0; i < len(fields); i += 2 {
			req.Header.Set(fields[i], fields[i+1])
		}
		resp, err := (&http.Client{Transport: tr}).Do(req)
		qt.Assert(t, qt.IsNil(err))
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		qt.Assert(t, qt.IsNil(err))
		return strings.TrimSpace(string(b))
	})
	cancel()
	qt.Assert(t, qt.Equals(next(t, events).Event, serve.Stopped))
	qt.Assert(t, qt.IsNil(within(done)))
}

// TestServeRetain has a log that is kept by its size; its cursors and its idempotency
// keys move with the pool.
func TestServeRetain(t *testing.T) {
	dir := serveDir(t)
	pool, moved := filepath.Join(dir, "pool"), filepath.Join(dir, "moved")
	flags := []string{"--pool-size", "32MiB", "--retain-size", "5000", "--retain-age", "1h", "--drop-acknowledged",
		"--idempotency-window", "48h", "--idempotency-keys", "100"}
	withServeHTTP(t, pool, flags, func(ask func(string, string, string, ...string) string) {
		for i := range 8 {
			qt.Check(t, qt.Equals(ask("POST", "/", strings.Repeat("x", 1000), "Idempotency-Key", fmt.Sprint(i)), fmt.Sprint(i+1)))
		}
		ask("PUT", "/log/cursors/a?from=6", "")
		status := ask("GET", "/log/status", "")
		for _, want := range []string{`"oldest":6,"next":9,`, `"retention":{"bytes":5000,"age_seconds":3600,"read":true,"withheld":0}`, `"kept":8,"most":100,"window_seconds":172800`} {
			qt.Check(t, qt.StringContains(status, want))
		}
	})
	archive := filepath.Join(dir, "archive")
	f, err := os.Create(archive)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(run([]string{"pool", "dump", pool}, env{stdout: f, stderr: io.Discard}), exitOK))
	qt.Assert(t, qt.IsNil(f.Close()))
	qt.Assert(t, qt.Equals(run([]string{"pool", "restore", archive, moved, "--size", "64MiB"}, env{stdout: io.Discard, stderr: io.Discard}), exitOK))
	withServeHTTP(t, moved, nil, func(ask func(string, string, string, ...string) string) {
		qt.Check(t, qt.StringContains(ask("GET", "/log/cursors", ""), `[{"name":"a","next":6,`))
		qt.Check(t, qt.Equals(ask("POST", "/", strings.Repeat("x", 1000), "Idempotency-Key", "7"), "8"))
		qt.Check(t, qt.Equals(ask("POST", "/", "new", "Idempotency-Key", "8"), "9"))
	})
}
