package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/serve"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

func TestServeKVUsage(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"kv", "missing --listen.*"},
		{"kv --listen :0", "missing --pool.*"},
		{"kv --listen :0 --pool x --rings 0", ".*must be positive.*"},
		{"kv surplus", `unexpected argument "surplus".*`},
	} {
		qt.Check(t, qt.ErrorMatches(serveCommand(t.Context(), io.Discard, strings.Fields(tc.args)...), tc.want), qt.Commentf("%s", tc.args))
	}
}

// withServeKV runs the command over a pool while fn runs.
func withServeKV(t *testing.T, pool string, fn func(ready serve.Event)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, done := serving(ctx, t, "kv", "--listen", "127.0.0.1:0", "--pool", pool, "--pool-size", "32MiB")
	ready := next(t, events)
	qt.Assert(t, qt.Equals(ready.Event, serve.Ready))
	fn(ready)
	cancel()
	qt.Assert(t, qt.Equals(next(t, events).Event, serve.Stopped))
	qt.Assert(t, qt.IsNil(within(done)))
}

// flip changes one bit of the only place in a file that holds mark.
func flip(t *testing.T, path, mark string) {
	t.Helper()
	b, err := os.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	i := bytes.Index(b, []byte(mark))
	qt.Assert(t, qt.IsTrue(i >= 0 && bytes.LastIndex(b, []byte(mark)) == i), qt.Commentf("%v", i))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	_, err = f.WriteAt([]byte{b[i+3] ^ 1}, int64(i+3))
	qt.Assert(t, qt.IsNil(err))
}

func marked(i int) string { return strings.Repeat(fmt.Sprintf("<%03d>", i), 200) }

// TestServeKV stores with curl, restarts, reads back, and then meets a pool in
// which a bit has flipped.
func TestServeKV(t *testing.T) {
	pool := filepath.Join(serveDir(t), "pool")
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("curl", append([]string{"-sS", "-m", "180", "-w", " %{http_code}"}, args...)...).CombinedOutput()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
		return string(out)
	}
	const n = 5
	withServeKV(t, pool, func(ready serve.Event) {
		qt.Assert(t, qt.Equals(ready.KV.Keys, 0))
		for i := range n {
			qt.Assert(t, qt.Equals(run("-X", "PUT", "--data-binary", marked(i), fmt.Sprint(ready.URL, "/k/", i)), " 201"))
		}
	})
	withServeKV(t, pool, func(ready serve.Event) {
		qt.Assert(t, qt.Equals(ready.KV.Keys, n))
		for i := range n {
			qt.Assert(t, qt.Equals(run(fmt.Sprint(ready.URL, "/k/", i)), marked(i)+" 200"))
		}
		qt.Assert(t, qt.Equals(run(ready.URL+"/k?prefix="), "0\n1\n2\n3\n4\n 200"))
	})
	flip(t, pool, marked(3))
	withServeKV(t, pool, func(ready serve.Event) {
		for i := range n {
			resp, err := http.Get(fmt.Sprint(ready.URL, "/k/", i))
			qt.Assert(t, qt.IsNil(err))
			resp.Body.Close()
			want := 200
			if i == 3 {
				want = 500
			}
			qt.Assert(t, qt.Equals(resp.StatusCode, want))
		}
		http.DefaultClient.CloseIdleConnections()
	})
}

// A record that was acknowledged and is damaged in the log is named, and the
// pool refused.
func TestServeKVDamagedLog(t *testing.T) {
	path := filepath.Join(serveDir(t), "pool")
	p, err := pmem.Create(path, pmem.Options{Size: 32 << 20})
	qt.Assert(t, qt.IsNil(err))
	s, err := kv.Open(p, kv.Options{})
	qt.Assert(t, qt.IsNil(err))
	for i := range 5 {
		_, err := s.PutBytes(fmt.Append(nil, "key", i), []byte(marked(i)))
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Assert(t, qt.IsNil(s.Commit()))
	qt.Assert(t, qt.IsNil(p.Close())) // as a crash: without a checkpoint
	flip(t, path, marked(2))
	err = serveCommand(t.Context(), io.Discard, "kv", "--listen", "127.0.0.1:0", "--pool", path)
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrChecksum))
	qt.Assert(t, qt.ErrorMatches(err, `serve kv: .*record 3.*checksum mismatch.*key2.*`))
}
