package tests

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/seed"
)

// serveWays are the ways in as an operator asks for them.
var serveWays = map[string][]string{
	"steered":       {"--receive", "steered"},
	"auto":          {"--receive", "auto", "--copy-from", "-1"},
	"copied":        {"--receive", "copied"},
	"without a NIC": {"--nic", "", "--receive", "auto", "--copy-from", "-1"},
}

// Bodies and values of all sizes, most of them announced, are stored as they were sent,
// by each way in, while the wire loses, repeats, reorders and damages frames, and small
// ones in between have connections change their way.
func TestBodiesByEachWay(t *testing.T) {
	const conns, requests = 60, 40
	for way, args := range serveWays {
		for _, kind := range []string{"http", "kv"} {
			t.Run(way+"/"+kind, func(t *testing.T) {
				l := newLab(t, netlab.Config{NoTxChecksum: true})
				s := serveKind(t, l, kind, poolFile(t), append([]string{"--pool-size", "256MiB"}, args...)...)
				first := seed.New(t).Uint64()
				fate := fate{drop: 20, repeat: 20, reorder: 20, delay: 10, damage: 15, truncate: 15}
				badWire(t, l.Client, l.ClientDev, 60, fate, first)
				badWire(t, l.Server, l.ServerDev, 60, fate, first+1)
				want := make([]map[uint64][]byte, conns)
				var connected sync.WaitGroup
				connected.Add(conns)
				parallel(t, conns, func(i int) (err error) {
					c := newClient(t, l)
					resp, err := c.Get(s.url)
					connected.Done()
					if err != nil {
						return err
					}
					_, err = io.Copy(io.Discard, resp.Body)
					if err := errors.Join(err, resp.Body.Close()); err != nil {
						return err
					}
					connected.Wait()
					want[i], err = store(c, s.url, kind, i, requests, rand.New(rand.NewPCG(first, uint64(i))))
					return err
				})
				n := s.stop().Port.Stats
				qt.Check(t, qt.Equals(n.SteeredBytes > 0, way == "steered"), qt.Commentf("%+v", n))
				qt.Check(t, qt.Equals(n.Joined > 0, way == "auto" || way == "without a NIC"), qt.Commentf("%+v", n))
				if kind == "kv" {
					return // they were read back
				}
				log := readLog(t, s.pool)
				for _, bodies := range want {
					for seq, body := range bodies {
						qt.Assert(t, qt.Equals(log[seq], sum(body)), qt.Commentf("record %d of %d bytes", seq, len(body)))
					}
				}
			})
		}
	}
}

// store sends one body after the other on a connection: runs of small ones, and large
// ones. Those of a kv it reads back.
func store(c *http.Client, url, kind string, conn, requests int, rng *rand.Rand) (map[uint64][]byte, error) {
	sent := map[uint64][]byte{}
	for i := range requests {
		size := 1 + rng.IntN(600)
		if i >= 25 && rng.IntN(2) == 0 {
			size = 1 + rng.IntN(1<<(10+rng.IntN(9)))
		}
		body := randomBytes(rng, size)
		if kind == "http" {
			seq, err := post(c, url, body)
			if err != nil {
				return nil, fmt.Errorf("request %d of %d bytes: %w", i, size, err)
			}
			sent[seq] = body
			continue
		}
		if err := putAndGet(c, fmt.Sprintf("%s/k/%d-%d", url, conn, rng.IntN(10)), body); err != nil {
			return nil, fmt.Errorf("value %d of %d bytes: %w", i, size, err)
		}
	}
	return sent, nil
}

func putAndGet(c *http.Client, url string, value []byte) error {
	req, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(value))
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return errors.New(resp.Status)
	}
	if resp, err = c.Get(url); err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil && !bytes.Equal(got, value) {
		err = fmt.Errorf("%d bytes came back, and they differ", len(got))
	}
	return err
}

// A NIC whose frames fit no packet buffer is not steered by default, not even where it
// was attached, and the status says why. Bodies arrive all the same.
func TestMTUPasses(t *testing.T) {
	for mtu, attach := range map[int]bool{9000: false, 3000: true} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			usePrivateBPFFS(t)
			l := newLab(t, netlab.Config{MTU: mtu})
			if attach {
				_, stderr, err := ctl(l, "attach", l.ServerDev)
				qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
				defer func() {
					_, stderr, err := ctl(l, "detach", l.ServerDev)
					qt.Check(t, qt.IsNil(err), qt.Commentf("%s", stderr))
				}()
			}
			s := serve(t, l, poolFile(t), "--receive", "auto")
			qt.Check(t, qt.IsFalse(s.ready.Port.Receive.Steered))
			qt.Check(t, qt.StringContains(s.ready.Port.Receive.Why, fmt.Sprintf("mtu %d", mtu)))
			body := random(1<<20, 1)
			seq, err := post(newClient(t, l), s.url, body)
			qt.Assert(t, qt.IsNil(err))
			s.stop()
			qt.Check(t, qt.Equals(readLog(t, s.pool)[seq], sum(body)))
		})
	}
}
