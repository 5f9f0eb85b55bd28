package tests

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/tlsring/tlstest"
)

// tlsClient is newClient with TLS.
func tlsClient(t testing.TB, l *netlab.Lab) *http.Client {
	c := newClient(t, l)
	c.Transport.(*http.Transport).TLSClientConfig = tlstest.Client()
	return c
}

// TestKillOverTLS: kill -9 under load over TLS, and what any client was told is stored is
// in the log after the restart, byte for byte.
func TestKillOverTLS(t *testing.T) {
	for name, nic := range map[string]bool{"steered": true, "no NIC": false} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, netlab.Config{})
			pool := poolFile(t)
			cert, key := tlstest.Files(t)
			args := []string{"--pool-size", "128MiB", "--tls-cert", cert, "--tls-key", key}
			if !nic {
				args = append(args, "--nic", "")
			}
			stored := map[uint64][32]byte{}
			for round := range 2 {
				s := serve(t, l, pool, args...)
				qt.Assert(t, qt.IsTrue(strings.HasPrefix(s.url, "https://")), qt.Commentf("%s", s.url))
				w := startTLSWriters(t, l, s.url, round)
				waitFor(t, func() bool { return w.count() > 200 || !s.Running() })
				qt.Assert(t, qt.IsTrue(s.Running()), qt.Commentf("server ended: %s", s.Said()))
				s.Kill()
				for seq, sum := range w.end() {
					stored[seq] = sum
				}
			}
			log := readLog(t, pool)
			for seq, sum := range stored {
				qt.Assert(t, qt.Equals(log[seq], sum), qt.Commentf("record %d", seq))
			}
			t.Logf("%d acknowledged, %d in the log", len(stored), len(log))
		})
	}
}

// tlsWriters post until the server is gone.
type tlsWriters struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	acks map[uint64][32]byte
}

func startTLSWriters(t *testing.T, l *netlab.Lab, url string, round int) *tlsWriters {
	w := &tlsWriters{acks: map[uint64][32]byte{}}
	c := tlsClient(t, l)
	for i := range 8 {
		w.wg.Add(1)
		go func() {
			defer w.wg.Done()
			for n := 0; ; n++ {
				body := bytes.Repeat(fmt.Appendf(nil, "%d-%d-%d;", round, i, n), 1+n*n%500)
				seq, err := post(c, url, body)
				if err != nil {
					return // killed
				}
				w.mu.Lock()
				w.acks[seq] = sha256.Sum256(body)
				w.mu.Unlock()
			}
		}()
	}
	return w
}

func (w *tlsWriters) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acks)
}

func (w *tlsWriters) end() map[uint64][32]byte {
	w.wg.Wait()
	return w.acks
}

// TestKVOverTLS: values of any size come back as they were stored, also to a client that
// reads slowly, and to many at once.
func TestKVOverTLS(t *testing.T) {
	l := newLab(t, netlab.Config{})
	cert, key := tlstest.Files(t)
	s := serveKind(t, l, "kv", poolFile(t), "--pool-size", "128MiB", "--tls-cert", cert, "--tls-key", key)
	c := tlsClient(t, l)
	for _, size := range []int{0, 1, 1983, 1984, 1985, 16384, 16385, 100_000, 5 << 20} {
		value := bytes.Repeat([]byte("0123456789abcdef!"), size/17+1)[:size]
		url := fmt.Sprintf("%s/k/of-%d", s.url, size)
		req, err := http.NewRequest("PUT", url, bytes.NewReader(value))
		qt.Assert(t, qt.IsNil(err))
		resp, err := c.Do(req)
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		qt.Assert(t, qt.Equals(resp.StatusCode, http.StatusCreated))
		resp, err = c.Get(url)
		qt.Assert(t, qt.IsNil(err))
		if size > 1<<20 {
			time.Sleep(100 * time.Millisecond) // the server has to wait for us
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(bytes.Equal(got, value), true), qt.Commentf("%d bytes of %d", len(got), size))
	}
	s.stop()
}

// TestTLSVersions: TLS 1.2 and 1.3 are spoken, older ones refused, and who speaks HTTP
// without TLS is told.
func TestTLSVersions(t *testing.T) {
	l := newLab(t, netlab.Config{})
	cert, key := tlstest.Files(t)
	s := serve(t, l, poolFile(t), "--tls-cert", cert, "--tls-key", key)
	for version, good := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c := tlsClient(t, l)
		conf := c.Transport.(*http.Transport).TLSClientConfig
		conf.MinVersion, conf.MaxVersion = version, version
		err := get(c, s.url)
		if good {
			qt.Check(t, qt.IsNil(err))
		} else {
			qt.Check(t, qt.ErrorMatches(err, ".*protocol version.*"))
		}
	}
	resp, err := newClient(t, l).Get("http://" + s.addr)
	qt.Assert(t, qt.IsNil(err))
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(resp.StatusCode, http.StatusBadRequest))
	qt.Check(t, qt.StringContains(string(text), "https"))
	s.stop()
}
