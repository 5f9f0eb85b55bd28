package httpd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/internal/seed"
	"github.com/pastenet/paste/internal/tlsring"
	"github.com/pastenet/paste/internal/tlsring/tlstest"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// site is a server on a real port, in a lab.
type site struct {
	t       *testing.T
	lab     *netlab.Lab
	pool    *pmem.Pool
	srv     *Server
	port    *pasteapi.Port
	stop    func()
	stopped pasteapi.Status
}

// open starts a server on address ip of the lab; nic "" means without one.
func open(t *testing.T, l *netlab.Lab, nic string, ip netip.Addr, cfg Config, poolSize int64) *site {
	t.Helper()
	pool, err := pmem.NewMemory("httpd-veth-test", pmem.Options{Size: poolSize})
	qt.Assert(t, qt.IsNil(err))
	free := pool.Free()
	s := &site{t: t, lab: l, pool: pool}
	cfg.Addr = netip.AddrPortFrom(ip, 0).String()
	cfg.Logger = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan error, 1), make(chan error, 1)
	go func() {
		done <- l.InServer(func() error {
			err := s.start(ctx, nic, cfg)
			ready <- err
			if err != nil {
				return nil
			}
			return s.run(ctx, cfg.Encrypted)
		})
	}()
	s.stop = sync.OnceFunc(func() {
		cancel()
		qt.Check(t, qt.IsNil(within(done)))
		if s.port != nil {
			s.stopped = s.port.Status()
			qt.Check(t, qt.IsNil(l.InServer(s.port.Close)))
		}
	})
	t.Cleanup(func() {
		s.stop()
		if n := pool.Log().Next(); n > pool.Log().Head() {
			qt.Check(t, qt.IsNil(pool.Log().Truncate(n-1)))
		}
		qt.Check(t, qt.Equals(pool.Free(), free))
		qt.Check(t, qt.Equals(pool.Misuses(), 0))
		qt.Check(t, qt.IsNil(pool.Close()))
	})
	qt.Assert(t, qt.IsNil(within(ready)))
	return s
}

func (s *site) start(ctx context.Context, nic string, cfg Config) (err error) {
	if s.srv, err = New(cfg, s.pool); err != nil {
		return err
	}
	s.port, err = pasteapi.Open(ctx, pasteapi.Options{NIC: nic, Receive: pasteapi.ReceiveSteered, Pool: s.pool, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	return s.port.Steer(s.srv.Addr().Port())
}

// run serves on the port's ring, over TLS if the configuration says so.
func (s *site) run(ctx context.Context, encrypted bool) error {
	if !encrypted {
		return s.srv.Run(ctx, s.port.Ring(0))
	}
	ring, err := tlsring.New(s.port.Ring(0), s.pool, tlstest.Server())
	if err != nil {
		return err
	}
	return errors.Join(s.srv.Run(ctx, ring), ring.Close())
}

func newLab(t *testing.T) *netlab.Lab {
	t.Helper()
	return netlabtest.New(t, netlab.Config{Prefix: "hs"})
}

func (s *site) url() string {
	if s.srv.cfg.Encrypted {
		return "https://" + s.srv.Addr().String()
	}
	return "http://" + s.srv.Addr().String()
}

func (s *site) client() *http.Client {
	c := &http.Client{
		Timeout: 3 * time.Minute,
		Transport: &http.Transport{
			DialContext: s.lab.Client.DialContext, TLSClientConfig: tlstest.Client(), MaxIdleConnsPerHost: 100, ExpectContinueTimeout: 3 * time.Minute,
		},
	}
	s.t.Cleanup(c.CloseIdleConnections)
	return c
}

func (s *site) dial() *net.TCPConn {
	s.t.Helper()
	c, err := s.lab.Client.DialContext(context.Background(), "tcp", s.srv.Addr().String())
	qt.Assert(s.t, qt.IsNil(err))
	s.t.Cleanup(func() { c.Close() })
	qt.Assert(s.t, qt.IsNil(c.SetDeadline(time.Now().Add(3*time.Minute))))
	return c.(*net.TCPConn)
}

// hashes stops the server and returns the SHA-256 of each record.
func (s *site) hashes() map[uint64][32]byte {
	s.stop()
	out := map[uint64][32]byte{}
	for r, err := range s.pool.Log().Records() {
		qt.Assert(s.t, qt.IsNil(err))
		qt.Assert(s.t, qt.IsNil(r.Verify()))
		h := sha256.New()
		_, err := r.WriteTo(h)
		qt.Assert(s.t, qt.IsNil(err))
		out[r.Seq] = [32]byte(h.Sum(nil))
	}
	return out
}

// put stores a random body and returns its record number and hash.
func put(c *http.Client, url string, size int, seed uint64, chunked bool) (seq uint64, sum [32]byte, err error) {
	body := make([]byte, size)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range body {
		body[i] = byte(rng.Uint32())
	}
	req, err := http.NewRequest("PUT", url, strings.NewReader(string(body)))
	if err != nil {
		return 0, sum, err
	}
	if chunked {
		req.ContentLength = -1
	}
	if size > 1<<20 {
		req.Header.Set("Expect", "100-continue")
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, sum, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, sum, err
	}
	if resp.StatusCode != http.StatusCreated {
		return 0, sum, fmt.Errorf("body of %d bytes: %s", size, resp.Status)
	}
	_, err = fmt.Sscan(resp.Header.Get("X-Paste-Seq"), &seq)
	return seq, sha256.Sum256(body), err
}

// TestVethBodies: bodies of every size, from clients at the same time, are
// received in place and are what the log holds.
func TestVethBodies(t *testing.T) {
	l := newLab(t)
	for _, tc := range []struct {
		name, nic string
		ip        netip.Addr
		persist   Persist
		encrypted bool
	}{
		{"IPv4", l.ServerDev, l.ServerIP4, PersistZeroCopy, false},
		{"IPv4 copy", l.ServerDev, l.ServerIP4, PersistCopy, false},
		{"IPv6", l.ServerDev, l.ServerIP6, PersistZeroCopy, false},
		{"no NIC", "", l.ServerIP4, PersistZeroCopy, false},
		{"TLS", l.ServerDev, l.ServerIP4, PersistZeroCopy, true},
		{"TLS, copy, no NIC", "", l.ServerIP4, PersistCopy, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			qt.Assert(t, qt.IsTrue(tc.ip.IsValid()), qt.Commentf("the kernel has no IPv6"))
			s := open(t, l, tc.nic, tc.ip, Config{Persist: tc.persist, Encrypted: tc.encrypted}, 128<<20)
			c := s.client()
			want := map[uint64][32]byte{}
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i, size := range []int{1, 63, 64, 1000, 1447, 1448, 1449, 4096, 4097, 30000, 1 << 18, 1<<20 + 1, 8 << 20} {
				wg.Add(1)
				go func() {
					defer wg.Done()
					seq, sum, err := put(c, s.url(), size, uint64(i), i%4 == 3)
					qt.Check(t, qt.IsNil(err))
					mu.Lock()
					want[seq] = sum
					mu.Unlock()
				}()
			}
			wg.Wait()
			qt.Assert(t, qt.DeepEquals(s.hashes(), want))
			st := s.stopped.Stats
			if tc.nic != "" {
				qt.Assert(t, qt.IsTrue(st.SteeredBytes > 9<<20), qt.Commentf("%+v", st))
			} else {
				qt.Assert(t, qt.Equals(st.SteeredBytes, 0))
			}
		})
	}
}

// TestVethManyConnections: each of a thousand connections is served, again and
// again, and none gets another one's answer.
func TestVethManyConnections(t *testing.T) {
	l := newLab(t)
	s := open(t, l, l.ServerDev, l.ServerIP4, Config{}, 256<<20)
	const n, rounds = 1000, 3
	conns := make([]*net.TCPConn, n)
	for i := range conns {
		conns[i] = s.dial()
	}
	for round := range rounds {
		for i, c := range conns {
			_, err := io.WriteString(c, post(fmt.Sprintf("connection %d round %d", i, round)))
			qt.Assert(t, qt.IsNil(err))
		}
		for i, c := range conns {
			b := make([]byte, 256)
			k, err := c.Read(b)
			qt.Assert(t, qt.IsNil(err), qt.Commentf("connection %d", i))
			qt.Assert(t, qt.IsTrue(strings.HasPrefix(string(b[:k]), "HTTP/1.1 201 ")))
		}
	}
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "connections closed", func() bool { return s.srv.Stats().Connections == 0 })
	s.stop()
	seen := map[string]bool{}
	for r, err := range s.pool.Log().Records() {
		qt.Assert(t, qt.IsNil(err))
		seen[string(r.Payload(0))] = true
	}
	for i := range n {
		for round := range rounds {
			qt.Assert(t, qt.IsTrue(seen[fmt.Sprintf("connection %d round %d", i, round)]))
		}
	}
}

// TestVethEnds: half-closed, reset and killed clients.
func TestVethEnds(t *testing.T) {
	l := newLab(t)
	s := open(t, l, l.ServerDev, l.ServerIP4, Config{ResponseBytes: 8}, 64<<20)
	for range 30 {
		c := s.dial()
		_, err := io.WriteString(c, post("half")+"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(c.CloseWrite()))
		out, err := io.ReadAll(c)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(strings.HasPrefix(string(out), "HTTP/1.1 201 ")), qt.Commentf("%q", out))
		qt.Assert(t, qt.IsTrue(strings.HasSuffix(string(out), okKeep)), qt.Commentf("%q", out))

		c = s.dial()
		_, err = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("r", 20000))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(c.SetLinger(0)))
		c.Close()

		out, err = io.ReadAll(func() io.Reader { c := s.dial(); io.WriteString(c, "BAD\r\n\r\n"); return c }())
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(strings.HasPrefix(string(out), "HTTP/1.1 400 ")))
	}
	eventually(t, "connections closed", func() bool { return s.srv.Stats().Connections == 0 })
	// The server goes on, and nothing but the log has taken frames for good.
	_, _, err := put(s.client(), s.url(), 100, 1, false)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(s.hashes(), 31))
}

// TestVethCurl uploads with curl, as the manual shows it.
func TestVethCurl(t *testing.T) {
	l := newLab(t)
	s := open(t, l, l.ServerDev, l.ServerIP4, Config{}, 64<<20)
	if out, err := l.ClientCommand(context.Background(), "curl", "--version").CombinedOutput(); err != nil {
		t.Fatalf("curl is needed (apt-get install curl): %v %s", err, out)
	}
	body := make([]byte, 3<<20)
	rng := seed.New(t)
	for i := range body {
		body[i] = byte(rng.Uint32())
	}
	file := filepath.Join(t.TempDir(), "file")
	qt.Assert(t, qt.IsNil(os.WriteFile(file, body, 0o600)))
	out, err := l.ClientCommand(context.Background(), "curl", "-sS", "-m", "180", "-i", "-T", file, s.url()).CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	qt.Assert(t, qt.StringContains(string(out), "HTTP/1.1 100 Continue"))
	qt.Assert(t, qt.StringContains(string(out), "X-Paste-Seq: 1\r\n"))
	qt.Assert(t, qt.DeepEquals(s.hashes(), map[uint64][32]byte{1: sha256.Sum256(body)}))
}

// TestVethFull: with a full log everything but storing goes on.
func TestVethFull(t *testing.T) {
	l := newLab(t)
	s := open(t, l, l.ServerDev, l.ServerIP4, Config{ResponseBytes: 8}, 24<<20)
	c := s.client()
	full := 0
	for i := range 1000 {
		if _, _, err := put(c, s.url(), 60000, uint64(i), false); err != nil {
			qt.Assert(t, qt.ErrorMatches(err, ".*507.*"))
			full++
			if full == 20 {
				break
			}
		}
	}
	qt.Assert(t, qt.Equals(full, 20))
	cc := s.dial()
	_, err := io.WriteString(cc, closing)
	qt.Assert(t, qt.IsNil(err))
	out, err := io.ReadAll(cc)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(out), okClose))
	s.hashes() // every record is whole
}
