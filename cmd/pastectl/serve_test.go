package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/serve"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/xsk"
)

// serveDir is a directory in which a pool can be made.
func serveDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "paste-serve-test-")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serveCommand runs `serve ARGS` until ctx is done.
func serveCommand(ctx context.Context, stdout io.Writer, args ...string) error {
	cmd := newServeCmd(env{stdout: stdout, stderr: io.Discard})
	cmd.SetOut(io.Discard)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(args)
	return cmd.ExecuteContext(ctx)
}

func TestServeUsage(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"http", "missing --listen.*"},
		{"http --listen :0", "missing --pool.*"},
		{"http --listen :0 --pool x --persist maybe", `.*unknown persistence "maybe".*`},
		{"http --listen :0 --pool x --on-full maybe", `.*unknown choice "maybe".*`},
		{"http --listen :0 --pool x --receive copied --copy-from 8", "--copy-from says when --receive auto copies.*"},
		{"http --listen :0 --pool x --napi-poll 50us", ".*give --nic too.*"},
		{"http --listen :0 --pool x --nic y --napi-poll 2s", "--napi-poll must be 1µs to 1s.*"},
		{"http --listen :0 --pool x --nic y --busy-poll --napi-poll 50us", ".*nothing for --napi-poll to say.*"},
		{"http --listen :0 --pool x --send maybe", `.*unknown way to send "maybe": must be auto, plain or io_uring.*`},
		{"http --listen :0 --pool x --rings 0", ".*must be positive.*"},
		{"http --listen :0 --pool x --busy-poll --spin 1ms", ".*nothing for --spin to say.*"},
		{"http --listen :0 --pool x --copybreak 100", ".*give --nic too.*"},
		{"kv --listen :0 --pool x --durable-ack", ".*give --nic too.*"},
		{"kv --listen :0 --pool x --xdp-mode generic", ".*give --nic too.*"},
		{"http --listen :0 --pool x --nic y --durable-ack --copybreak 1", ".*nothing for --copybreak to say.*"},
		{"http --listen :0 --pool x --nic y --copybreak 65536", ".*no segment has more than.*"},
		{"http --listen :0 --pool x --persist none --on-full wrap", ".*nothing for --on-full to say.*"},
		{"http --listen :0 --pool x --persist none --retain-age 1h", ".*nothing for --retain-age to say.*"},
		{"http --listen :0 --pool x --persist none --idempotency-keys 5", ".*nothing for --idempotency-keys to say.*"},
		{"http --listen :0 --pool x --retain-age 10ms", "--retain-age must be at least a second.*"},
		{"http --listen :0 --pool x --idempotency-window 0s", "--idempotency-window must be positive.*"},
		{"http --listen :0 --pool x --drain-timeout -1s", ".*must not be negative.*"},
		{"http --listen :0 --pool x --rings 60 --max-connections 1000000000", "60000000000 connections need .* file descriptors, and this process may have .*"},
		{"http --listen :0 --pool x --response-bytes -1", "--response-bytes must be 1 to 67108864.*"},
		{"http --listen :0 --pool x --response-bytes 99999999999", "--response-bytes must be 1 to 67108864.*"},
		{"http --listen :0 --pool x --spin -1s", "--spin must not be negative.*"},
		{"http --listen :0 --pool x --pool-size 1.5G", `.*want a number of bytes such as 4096, 64MiB or 1GiB`},
		{"http --listen :0 --pool x --tls-cert y", "--tls-cert and --tls-key belong together.*"},
		{"kv --listen :0 --pool x --tls-cert y --tls-key", ".*flag needs an argument: --tls-key.*"},
		{"http surplus", `unexpected argument "surplus".*`},
	} {
		qt.Check(t, qt.ErrorMatches(serveCommand(t.Context(), io.Discard, strings.Fields(tc.args)...), tc.want), qt.Commentf("%s", tc.args))
	}
}

func TestServeErrors(t *testing.T) {
	dir := serveDir(t)
	empty := filepath.Join(dir, "empty")
	qt.Assert(t, qt.IsNil(os.WriteFile(empty, nil, 0o600)))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	defer ln.Close()
	pool := filepath.Join(dir, "pool")
	small := []string{"--pool-size", "16MiB"}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--listen", "127.0.0.1:0", "--pool", empty}, "serve http: .*is empty.*"},
		{[]string{"--listen", "127.0.0.1:0", "--pool", "/proc/paste"}, "serve http: .*"},
		{append(small, "--listen", ln.Addr().String(), "--pool", pool), "serve http: listen on .*: address already in use; stop the other server.*"},
		{append(small, "--listen", "127.0.0.1:0", "--pool", pool, "--cpu", "100000"), "serve http: new http server: pin thread to cpu 100000: there is no such CPU .*"},
		{append(small, "--listen", "127.0.0.1:0", "--pool", pool, "--body-limit", "16MiB"), "serve http: new http server: bodies of up to 16777216 bytes .* the pool allows for [0-9]+; .*"},
		{append(small, "--listen", "127.0.0.1:0", "--pool", pool, "--tls-cert", "/nowhere/c", "--tls-key", "/nowhere/k"), "serve http: certificate: stat /nowhere/c: no such file.*"},
		{append(small, "--listen", "nowhere", "--pool", pool), `serve http: listen on "nowhere": want ADDRESS:PORT.*`},
	} {
		qt.Check(t, qt.ErrorMatches(serveCommand(t.Context(), io.Discard, append([]string{"http"}, tc.args...)...), tc.want))
	}
	err = serveCommand(t.Context(), io.Discard, "http", "--nic", "nosuchnic0", "--listen", "127.0.0.1:0", "--pool", pool, "--pool-size", "16MiB")
	qt.Check(t, qt.ErrorMatches(err, "serve http: .*nosuchnic0.*"))
}

// A server that cannot start leaves no pool behind that it made, and those that
// it found as they were.
func TestServeFailedStart(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	qt.Assert(t, qt.IsNil(err))
	defer ln.Close()
	for _, kind := range []string{"http", "kv"} {
		dir := serveDir(t)
		pool := filepath.Join(dir, "pool")
		fail := func(args ...string) {
			t.Helper()
			args = append([]string{kind, "--pool", pool, "--pool-size", "16MiB"}, args...)
			qt.Check(t, qt.IsNotNil(serveCommand(t.Context(), io.Discard, args...)))
		}
		fail("--listen", ln.Addr().String())
		fail("--listen", "127.0.0.1:0", "--nic", "nosuchnic0")
		left, err := os.ReadDir(dir)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(left, 0))

		p, err := pmem.Create(pool, pmem.Options{Size: 16 << 20})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(p.Close()))
		fail("--listen", ln.Addr().String())
		q, err := pmem.Open(pool, pmem.Options{})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(q.UUID(), p.UUID()))
		q.Close()
	}
}

// TestServeWithoutNIC runs the command as a user does, restarts it over the
// same pool, and finds its records.
func TestServeWithoutNIC(t *testing.T) {
	pool := filepath.Join(serveDir(t), "pool")
	for run := range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		events, done := serving(ctx, t, "http", "--listen", "127.0.0.1:0", "--pool", pool, "--pool-size", "32MiB")
		ready := next(t, events)
		qt.Assert(t, qt.Equals(ready.Event, serve.Ready))
		qt.Assert(t, qt.Equals(ready.Records, uint64(3*run)))
		client := &http.Client{Transport: &http.Transport{}}
		for range 3 {
			resp, err := client.Post(ready.URL, "", strings.NewReader("hello"))
			qt.Assert(t, qt.IsNil(err))
			resp.Body.Close()
			qt.Assert(t, qt.Equals(resp.StatusCode, 201))
		}
		client.CloseIdleConnections()
		cancel()
		stopped := next(t, events)
		qt.Assert(t, qt.Equals(stopped.Event, serve.Stopped))
		qt.Assert(t, qt.Equals(stopped.HTTP.Stored, 3))
		qt.Assert(t, qt.IsNil(within(done)))
	}
}

func TestDescribeNIC(t *testing.T) {
	qt.Check(t, qt.Equals(describeNIC(&pasteapi.Status{}), "none (nothing is steered)"))
	qt.Check(t, qt.Equals(describeNIC(&pasteapi.Status{
		NIC: "eth0", Receive: pasteapi.ReceiveStatus{Steered: true}, XDP: bpf.ModeNative, Queues: []pasteapi.QueueStatus{{Mode: xsk.Copy}, {Queue: 1, Mode: xsk.Copy}},
	}), "eth0 (native, copy)"))
	qt.Check(t, qt.Equals(describeNIC(&pasteapi.Status{NIC: "eth0", Receive: pasteapi.ReceiveStatus{Why: "so it is"}}),
		"eth0 (not steered: so it is)"))
}

// What a user asks of a pool that exists is true of it, or refused.
func TestServeOtherPool(t *testing.T) {
	for _, kind := range []string{"http", "kv"} {
		pool := filepath.Join(serveDir(t), "pool")
		p, err := pmem.Create(pool, pmem.Options{Size: 16 << 20})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(p.Close()))
		for args, want := range map[string]string{
			"--pool-size 32MiB": ".*16777216 bytes, not 33554432; .*",
			"--pool-size 8MiB":  ".*16777216 bytes, not 8388608; .*",
			"--frame-size 4096": ".*frames of 2048 bytes, not 4096; .*",
			"--pool-size 16MiB --listen nowhere --frame-size 2048": ".*listen on.*",
			"--pool-size 16777200 --listen nowhere":                ".*listen on.*", // as rounded
			"--listen nowhere":                                     ".*listen on.*",
		} {
			args := append([]string{kind, "--pool", pool}, strings.Fields(args)...)
			if !strings.Contains(strings.Join(args, " "), "nowhere") {
				args = append(args, "--listen", "127.0.0.1:0")
			}
			qt.Check(t, qt.ErrorMatches(serveCommand(t.Context(), io.Discard, args...), "serve .*"+want), qt.Commentf("%v", args))
		}
	}
}

// A server that is told to end while it opens its pool does so at once, says
// why in one sentence, and leaves no pool that it made.
func TestServeInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, kind := range []string{"http", "kv"} {
		dir := serveDir(t)
		err := serveCommand(ctx, io.Discard, kind, "--listen", "127.0.0.1:0", "--pool", filepath.Join(dir, "pool"), "--pool-size", "64MiB")
		qt.Check(t, qt.ErrorMatches(err, "serve "+kind+": interrupted while pool .* was opened"))
		for end := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Millisecond) {
			left, err := os.ReadDir(dir)
			qt.Assert(t, qt.IsNil(err))
			if len(left) == 0 {
				break
			}
			qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("%v is left", left))
		}
	}
}

// within is what ch brings; a server that hangs is an error of the test's.
func within(ch <-chan error) error {
	select {
	case err := <-ch:
		return err
	case <-time.After(3 * time.Minute):
		return errors.New("nothing has happened for three minutes")
	}
}
