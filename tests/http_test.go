package tests

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/pasteapi"
)

// One connection from SYN to FIN, over a NIC that was not attached.
func TestHandshakeToClose(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t))
	qt.Check(t, qt.Equals(s.ready.Port.Attached, pasteapi.AttachedProcess))
	c := dial(t, l, s.addr)
	// The first request may arrive before the connection is registered, and
	// is copied then; the second one may not.
	resp, err := ask(c, bufio.NewReader(c), "GET", "")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(resp.StatusCode, http.StatusOK))
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	qt.Assert(t, qt.IsNil(err))
	got, err := io.ReadAll(c) // up to the server's FIN
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsTrue(bytes.HasPrefix(got, []byte("HTTP/1.1 200 OK\r\n"))), qt.Commentf("%q", got))
	qt.Assert(t, qt.IsNil(c.Close()))
	e := s.stop()
	qt.Check(t, qt.Equals(e.HTTP.Requests, 2))
	qt.Check(t, qt.Equals(e.HTTP.Connections, 0))
	qt.Check(t, qt.IsTrue(e.Port.Stats.Steered+(e.Port.Stats.Copied+e.Port.Stats.Read) >= 1), qt.Commentf("%+v", e.Port.Stats))
}

// Bodies of all sizes end up in the log as they were sent.
func TestBodies(t *testing.T) {
	sizes := []int{1, 2, 100, 1023, 1447, 1448, 1449, 2048, 4096, 65535, 1 << 20, 8 << 20}
	for _, persist := range []string{"zero-copy", "copy"} {
		for _, complete := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s complete checksums %v", persist, complete), func(t *testing.T) {
				l := newLab(t, netlab.Config{NoTxChecksum: complete})
				s := serve(t, l, poolFile(t), "--persist", persist)
				c := newClient(t, l)
				seqs := make([]uint64, len(sizes))
				for i, n := range sizes {
					var err error
					seqs[i], err = post(c, s.url, random(n, int64(i)))
					qt.Assert(t, qt.IsNil(err), qt.Commentf("%d bytes", n))
				}
				stats := s.stop().Port.Stats
				qt.Check(t, qt.IsTrue((stats.CopiedBytes+stats.ReadBytes)*10 < stats.SteeredBytes), qt.Commentf("%+v", stats))
				for i, n := range sizes {
					got := record(t, s.pool, seqs[i])
					qt.Check(t, qt.Equals(sha256.Sum256(got), sha256.Sum256(random(n, int64(i)))), qt.Commentf("%d bytes, %d came back", n, len(got)))
				}
			})
		}
	}
}

// In generic mode a veth hands over what its other end did not cut into
// segments. That is no frame for AF_XDP, which would drop it.
func TestGenericMode(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t), "--xdp-mode", "generic")
	c := newClient(t, l)
	const n = 8 << 20
	for i := range int64(4) {
		seq, err := post(c, s.url, random(n, i))
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(sha256.Sum256(record(t, s.pool, seq)), sha256.Sum256(random(n, i))))
	}
	port := s.stop().Port
	qt.Check(t, qt.Equals(port.XDP, bpf.ModeGeneric))
	qt.Check(t, qt.Not(qt.Equals(port.Steer["pass_large"], 0)))
}

// Thousands of requests in pieces that respect no boundary, replies read at
// the same time.
func TestPipelined(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t))
	c := dial(t, l, s.addr)
	const requests = 5000
	rng := rand.New(rand.NewSource(1))
	var stream bytes.Buffer
	bodies := make(map[int][]byte)
	for i := range requests {
		if i%3 == 0 {
			fmt.Fprintf(&stream, "GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", i)
			continue
		}
		bodies[i] = random(rng.Intn(300), int64(i))
		fmt.Fprintf(&stream, "POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", i, len(bodies[i]), bodies[i])
	}
	sent := make(chan error, 1)
	go func() {
		for rest := stream.Bytes(); len(rest) > 0; {
			n := min(1+rng.Intn(3000), len(rest))
			if _, err := c.Write(rest[:n]); err != nil {
				sent <- err
				return
			}
			rest = rest[n:]
		}
		sent <- nil
	}()
	seqs := make(map[int]uint64)
	in := bufio.NewReader(c)
	for i := range requests {
		resp, err := http.ReadResponse(in, nil)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("reply %d", i))
		if i%3 != 0 {
			seqs[i], err = seqOf(resp)
			qt.Assert(t, qt.IsNil(err), qt.Commentf("reply %d", i))
			continue
		}
		body, err := io.ReadAll(resp.Body)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(body, 64))
	}
	qt.Assert(t, qt.IsNil(<-sent))
	qt.Check(t, qt.Equals(s.stop().HTTP.Requests, requests))
	log := readLog(t, s.pool)
	for i, body := range bodies {
		qt.Assert(t, qt.Equals(log[seqs[i]], sha256.Sum256(body)), qt.Commentf("request %d", i))
	}
}

func TestChunked(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t))
	c := newClient(t, l)
	var seqs []uint64
	for i, n := range []int{1, 5000, 3 << 20} {
		// A reader of unknown length makes net/http send chunks.
		body := struct{ io.Reader }{bytes.NewReader(random(n, int64(i)))}
		resp, err := c.Post(s.url, "", body)
		qt.Assert(t, qt.IsNil(err))
		seq, err := seqOf(resp)
		qt.Assert(t, qt.IsNil(err))
		seqs = append(seqs, seq)
	}
	s.stop()
	log := readLog(t, s.pool)
	for i, n := range []int{1, 5000, 3 << 20} {
		qt.Check(t, qt.Equals(log[seqs[i]], sha256.Sum256(random(n, int64(i)))))
	}
}

// curl uploads a file, for which it asks with Expect: 100-continue; from a
// pipe it sends chunks.
func TestCurl(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t))
	data := random(5<<20, 7)
	file := filepath.Join(t.TempDir(), "upload")
	qt.Assert(t, qt.IsNil(os.WriteFile(file, data, 0o600)))
	curl := func(in io.Reader, args ...string) (out, log string) {
		t.Helper()
		var stderr bytes.Buffer
		cmd := l.ClientCommand(context.Background(), "curl", append([]string{"-sS", "-v", "--fail", "--max-time", fmt.Sprint(patience.Seconds())}, args...)...)
		cmd.Stdin, cmd.Stderr = in, &stderr
		b, err := cmd.Output()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr.String()))
		return string(b), stderr.String()
	}
	var seqs []uint64
	for _, in := range []io.Reader{nil, bytes.NewReader(data)} {
		from := file
		if in != nil {
			from = "-"
		}
		out, log := curl(in, "-H", "Expect: 100-continue", "-T", from, s.url+"/upload")
		qt.Check(t, qt.StringContains(log, "100 Continue"))
		seq, err := strconv.ParseUint(strings.TrimSpace(out), 10, 64)
		qt.Assert(t, qt.IsNil(err))
		seqs = append(seqs, seq)
	}
	out, _ := curl(nil, s.url)
	qt.Check(t, qt.HasLen(out, 64))
	s.stop()
	for _, seq := range seqs {
		qt.Check(t, qt.Equals(sha256.Sum256(record(t, s.pool, seq)), sha256.Sum256(data)))
	}
}

func TestWrk(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t), "--pool-size", "256MiB", "--on-full", "wrap")
	script := filepath.Join(t.TempDir(), "post.lua")
	qt.Assert(t, qt.IsNil(os.WriteFile(script, []byte(`wrk.method = "POST"; wrk.body = string.rep("p", 1024)`), 0o600)))
	for _, args := range [][]string{nil, {"-s", script}} {
		out, err := l.ClientCommand(context.Background(), "wrk",
			append([]string{"-t1", "-c100", "-d1s", "--timeout", fmt.Sprint(patience.Seconds()), s.url}, args...)...).CombinedOutput()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
		for _, bad := range []string{"Socket errors", "Non-2xx"} {
			qt.Check(t, qt.Not(qt.StringContains(string(out), bad)))
		}
	}
	e := s.stop()
	t.Logf("%d requests, %d system calls", e.HTTP.Requests, e.Port.Stats.Syscalls)
	qt.Check(t, qt.IsTrue(e.HTTP.Requests > 100), qt.Commentf("%v", e.HTTP.Requests))
	qt.Check(t, qt.IsTrue(e.HTTP.Stored > 100), qt.Commentf("%v", e.HTTP.Stored))
	qt.Check(t, qt.Equals(e.HTTP.Malformed, 0))
}
