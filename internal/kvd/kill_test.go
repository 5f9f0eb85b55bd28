package kvd

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/lab"
)

// process is a server that can be killed.
type process struct {
	cmd *lab.Cmd
	out io.ReadCloser
	err bytes.Buffer
}

func startProcess(t *testing.T, l *lab.Lab, pool, addr string) *process {
	t.Helper()
	exe, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	p := &process{cmd: l.ServerCommand(context.Background(), exe)}
	p.cmd.Env = append(os.Environ(), serveEnv+"="+strings.Join([]string{pool, addr, l.ServerDev}, ","))
	p.cmd.Stderr = &p.err
	p.out, err = p.cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.cmd.Start()))
	line, err := bufio.NewReader(p.out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready") {
		p.cmd.Wait()
		t.Fatalf("server did not start: %q, %v, %s", line, err, p.err.String())
	}
	return p
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// noted is what a client knows of one key: the value of the last request that
// was acknowledged, and that of one that was not. 0 is no value.
type noted struct {
	acked, tried int
	pending      bool
}

// worker writes numbered values under keys of its own.
type worker struct {
	id   int
	n    int
	keys [40]noted
}

func numbered(worker, key, n int) []byte {
	return pattern([]int{5, 100, 900, 1024, 4000}[n%5], uint64(worker)<<40|uint64(key)<<20|uint64(n))
}

// write goes on until the server is gone, and returns the number of
// acknowledged requests.
func (w *worker) write(c *http.Client, url string) (acks int) {
	for {
		w.n++
		i := w.n % len(w.keys)
		k := &w.keys[i]
		path := fmt.Sprintf("%s/k/w%d-%d", url, w.id, i)
		k.pending, k.tried = true, w.n
		var req *http.Request
		if w.n%7 == 0 {
			k.tried = 0
			req, _ = http.NewRequest("DELETE", path, nil)
		} else {
			req, _ = http.NewRequest("PUT", path, bytes.NewReader(numbered(w.id, i, w.n)))
		}
		resp, err := c.Do(req)
		if err != nil {
			return acks
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode/100 == 2 || resp.StatusCode == 404 && k.tried == 0 {
			k.acked, k.pending = k.tried, false
			acks++
		}
	}
}

// check reads every key back.
func (w *worker) check(c *http.Client, url string) error {
	for i := range w.keys {
		k := &w.keys[i]
		resp, err := c.Get(fmt.Sprintf("%s/k/w%d-%d", url, w.id, i))
		if err != nil {
			return err
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		is := func(n int) bool {
			if n == 0 {
				return resp.StatusCode == 404
			}
			return resp.StatusCode == 200 && bytes.Equal(b, numbered(w.id, i, n))
		}
		switch {
		case is(k.acked):
		case k.pending && is(k.tried):
			k.acked = k.tried
		default:
			return fmt.Errorf("key w%d-%d: status %d, %d bytes: neither number %d, which was acknowledged, nor %d (tried: %v)", w.id, i, resp.StatusCode, len(b), k.acked, k.tried, k.pending)
		}
		k.pending = false
	}
	return nil
}

// TestKill kills the server under load, again and again: what it acknowledged
// is there each time. PASTE_KILL_ROUNDS sets how often; 20 by default.
func TestKill(t *testing.T) {
	rounds := 20
	if n, err := strconv.Atoi(os.Getenv("PASTE_KILL_ROUNDS")); err == nil {
		rounds = n
	} else if testing.Short() {
		rounds = 3
	}
	l := newLab(t)
	dir, err := os.MkdirTemp("/dev/shm", "paste-kvd-test-")
	qt.Assert(t, qt.IsNil(err))
	defer os.RemoveAll(dir)
	pool := filepath.Join(dir, "pool")
	addr := netip.AddrPortFrom(l.ServerIP4, 8080).String()
	url := "http://" + addr
	workers := make([]worker, 8)
	acks := 0
	for round := range rounds {
		p := startProcess(t, l, pool, addr)
		tr := &http.Transport{MaxIdleConnsPerHost: 100, DialContext: func(ctx context.Context, network, a string) (net.Conn, error) {
			return l.Client.DialContext(ctx, network, a)
		}}
		c := &http.Client{Transport: tr, Timeout: 5 * time.Second}
		for i := range workers {
			workers[i].id = i
			if err := workers[i].check(c, url); err != nil {
				p.kill()
				t.Fatalf("round %d: %v", round, err)
			}
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		for i := range workers {
			wg.Go(func() {
				n := workers[i].write(c, url)
				mu.Lock()
				acks += n
				mu.Unlock()
			})
		}
		time.Sleep(time.Duration(10+rand.IntN(200)) * time.Millisecond) // the moment of the kill
		p.kill()
		wg.Wait()
		tr.CloseIdleConnections()
	}
	t.Logf("%d rounds, %d acknowledged requests", rounds, acks)
	qt.Assert(t, qt.IsTrue(acks > 100*rounds), qt.Commentf("%d", acks))
}
