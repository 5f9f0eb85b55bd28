package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

// TestServeLostPool takes a server's pool file away while clients write and read:
// the server ends with one sentence that says so, and a client's write fails.
func TestServeLostPool(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"removed": os.Remove,
		"emptied": func(path string) error { return os.Truncate(path, 0) },
		"cut off": func(path string) error { return os.Truncate(path, 16<<20) },
	} {
		for _, kind := range []string{"http", "kv"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				pool := filepath.Join(serveDir(t), "pool")
				events, done := serving(t.Context(), t, kind, "--listen", "127.0.0.1:0", "--pool", pool, "--pool-size", "32MiB")
				ready := next(t, events)
				client := &http.Client{Transport: &http.Transport{}}
				defer client.CloseIdleConnections()
				for n := 0; ; n++ {
					if n == 20 {
						qt.Assert(t, qt.IsNil(lose(pool)))
					}
					req, err := http.NewRequest("PUT", ready.URL+"/k/x", strings.NewReader(strings.Repeat("hello", 2000)))
					qt.Assert(t, qt.IsNil(err))
					resp, err := client.Do(req)
					if err != nil {
						qt.Assert(t, qt.IsTrue(n >= 20), qt.Commentf("%v", err))
						break
					}
					resp.Body.Close()
				}
				err := within(done)
				qt.Assert(t, qt.ErrorIs(err, pmem.ErrLost))
				qt.Check(t, qt.ErrorMatches(err, "serve "+kind+": pool file lost: "+pool+" was .* while it was open.*"))
				qt.Check(t, qt.Equals(strings.Count(err.Error(), "pool file lost"), 1))
			})
		}
	}
}

// TestServePoolOfOthers: a pool file that others may write to is refused, with the flag that
// allows it.
func TestServePoolOfOthers(t *testing.T) {
	path := filepath.Join(serveDir(t), "pool")
	p, err := pmem.Create(path, pmem.Options{Size: 16 << 20})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Close()))
	qt.Assert(t, qt.IsNil(os.Chmod(path, 0o666)))
	for _, kind := range []string{"http", "kv"} {
		args := []string{kind, "--listen", "127.0.0.1:0", "--pool", path}
		err := serveCommand(t.Context(), io.Discard, args...)
		qt.Check(t, qt.ErrorIs(err, pmem.ErrOwner))
		qt.Check(t, qt.ErrorMatches(err, ".*mode 0666, .*; `--allow-foreign-pool` does that"))
	}
	// With the flag the pool is used: only the address is wrong.
	err = serveCommand(t.Context(), io.Discard, "http", "--listen", "192.0.2.1:1", "--pool", path, "--allow-foreign-pool")
	qt.Check(t, qt.ErrorMatches(err, ".*192.0.2.1:1.*"))
}

// TestServeLargeBody: what fits in the pool is stored, also when it has more
// pieces than 16 bits can count.
func TestServeLargeBody(t *testing.T) {
	pool := filepath.Join(serveDir(t), "pool")
	ctx, cancel := context.WithCancel(t.Context())
	events, done := serving(ctx, t, "http", "--listen", "127.0.0.1:0", "--pool", pool, "--pool-size", "384MiB", "--body-limit", "160MiB")
	ready := next(t, events)
	client := &http.Client{Transport: &http.Transport{}}
	body := bytes.Repeat([]byte("0123456789"), 14<<20)
	resp, err := client.Post(ready.URL, "", bytes.NewReader(body))
	qt.Assert(t, qt.IsNil(err))
	resp.Body.Close()
	client.CloseIdleConnections()
	qt.Assert(t, qt.Equals(resp.StatusCode, 201))
	cancel()
	qt.Assert(t, qt.IsNil(within(done)))
	p, err := pmem.Open(pool, pmem.Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	rec, err := p.Log().Record(1)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(rec.Verify()))
	qt.Assert(t, qt.Equals(rec.Length, int64(len(body))))
	qt.Check(t, qt.IsTrue(len(rec.Fragments) > 1<<16), qt.Commentf("%d fragments", len(rec.Fragments)))
}

// TestServeForeignPool: no server takes the pool of another one, also not one
// from before pools said what they are for, and leaves it as it is.
func TestServeForeignPool(t *testing.T) {
	for kind, fill := range map[string]func(t *testing.T, p *pmem.Pool){
		"kv": func(t *testing.T, p *pmem.Pool) {
			_, err := p.Log().AppendCopy([]byte("a body"))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(p.Log().Commit()))
		},
		"http": func(t *testing.T, p *pmem.Pool) {
			s, err := kv.Open(p, kv.Options{})
			qt.Assert(t, qt.IsNil(err))
			_, err = s.PutBytes([]byte("key"), []byte("value"))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(s.Close()))
		},
	} {
		for _, old := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", kind, old), func(t *testing.T) {
				path := filepath.Join(serveDir(t), "pool")
				p, err := pmem.Create(path, pmem.Options{Size: 16 << 20})
				qt.Assert(t, qt.IsNil(err))
				fill(t, p)
				if old {
					qt.Assert(t, qt.IsNil(p.DeleteRoot(".purpose")))
				} else if kind == "kv" {
					qt.Assert(t, qt.IsNil(p.Claim("http")))
				}
				qt.Assert(t, qt.IsNil(p.Close()))
				err = serveCommand(t.Context(), io.Discard, kind, "--listen", "127.0.0.1:0", "--pool", path)
				if old && kind == "kv" {
					qt.Check(t, qt.ErrorIs(err, kv.ErrForeign))
				} else {
					qt.Check(t, qt.ErrorIs(err, pmem.ErrPurpose))
				}
				p, err = pmem.Open(path, pmem.Options{ReadOnly: true})
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(p.Purpose() == "", old))
				qt.Check(t, qt.IsNil(p.Close()))
			})
		}
	}
}
