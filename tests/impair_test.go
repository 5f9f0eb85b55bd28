package tests

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/internal/seed"
	"github.com/pastenet/paste/pasteapi"
)

// soakVariable names the environment variable that lets TestImpaired and
// TestHostile go on for that long, each time with another seed and with more
// connections: "8h".
const soakVariable = "PASTE_SOAK"

// soakConns is how many connections a test makes then.
const soakConns = 500

// longBulk is how many bytes one connection sends then.
const longBulk = 16 << 20

// soak calls run once, or over and over until the time is up.
func soak(t *testing.T, run func(t *testing.T, seed uint64, long bool)) {
	t.Helper()
	text := os.Getenv(soakVariable)
	if text == "" {
		for s := range seed.From(1) {
			run(t, s, false)
		}
		return
	}
	limit, err := time.ParseDuration(text)
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s=%s", soakVariable, text))
	begun := time.Now()
	rounds := uint64(0)
	for s := range seed.From(1 << 62) {
		if time.Since(begun) > limit || t.Failed() {
			break
		}
		s += rounds * (soakConns - 1) // connection i has seed s+i: none comes twice
		t.Run(fmt.Sprintf("%s=%d", seed.Variable, s), func(t *testing.T) { run(t, s, true) })
		rounds++
	}
	t.Logf("%d rounds in %v", rounds, time.Since(begun).Round(time.Second))
}

// waysIn are how a connection's bytes can be made to come to its ring.
var waysIn = []struct {
	name    string
	inPlace bool // some payload must be received in place, otherwise none
	expects bool // the application announces payloads at random
	options func(nic string) pasteapi.Options
}{
	{"steered", true, true, func(nic string) pasteapi.Options { return pasteapi.Options{NIC: nic, Copybreak: -1} }},
	{"mixed", true, false, func(nic string) pasteapi.Options { return pasteapi.Options{NIC: nic, Receive: pasteapi.ReceiveSteered} }},
	{"default", false, false, func(nic string) pasteapi.Options { return pasteapi.Options{NIC: nic} }},
	{"announced", false, true, func(nic string) pasteapi.Options { return pasteapi.Options{NIC: nic} }},
	{"copied, announced", false, true, func(nic string) pasteapi.Options { return pasteapi.Options{NIC: nic, Receive: pasteapi.ReceiveCopied} }},
	{"without a NIC", false, false, func(string) pasteapi.Options { return pasteapi.Options{} }},
}

var impairments = []struct {
	name string
	fate
}{
	{"loss", fate{drop: 100}},
	{"duplicates", fate{repeat: 100}},
	{"reordering", fate{reorder: 100}},
	{"delay", fate{delay: 100}},
	{"corruption", fate{damage: 100}},
	{"truncation", fate{truncate: 100}},
	{"everything", fate{drop: 20, repeat: 20, reorder: 20, delay: 10, damage: 15, truncate: 15}},
}

// Whatever the wire does to the frames, in both directions, the application gets
// the bytes that were sent, its peer gets the answers, and every frame comes
// back to the pool: over each way in, for streams and for short messages, and
// for one connection as for many.
func TestImpaired(t *testing.T) {
	soak(t, func(t *testing.T, seed uint64, long bool) {
		for _, way := range waysIn {
			t.Run(way.name, func(t *testing.T) {
				l := newLab(t, netlab.Config{NoTxChecksum: true})
				o := way.options(l.ServerDev)
				o.Pool = newPool(t, 64<<20)
				// An echo whose answers are lost has more and more to send: what is copied
				// comes on, however much waits to be sent. Only steered frames are held.
				o.TxLimit = 2 * longBulk
				a := new(ringapp.App)
				if way.expects {
					a.OnData = announceAndEcho(seed)
				}
				a.Start(t, l, o, net.JoinHostPort(l.ServerIP4.String(), "7000"))
				for _, i := range impairments {
					t.Run(i.name, func(t *testing.T) {
						badWire(t, l.Client, l.ClientDev, 30, i.fate, seed)
						badWire(t, l.Server, l.ServerDev, 30, i.fate, seed+1)
						impairedTraffic(t, l, a, seed, long)
					})
				}
				qt.Check(t, qt.Equals(a.Port.Status().Stats.Steered > 0, way.inPlace))
				a.Stop(t)
				for _, cause := range a.Causes {
					qt.Check(t, qt.IsNil(cause))
				}
			})
		}
	})
}

// announceAndEcho announces now and then that a payload follows, of any length, whatever
// the peer sends: that must change nothing but the slots.
func announceAndEcho(seed uint64) func(*ringapp.App, *pasteapi.Slot) error {
	rng := rand.New(rand.NewPCG(seed, 4))
	return func(a *ringapp.App, s *pasteapi.Slot) error {
		if rng.IntN(20) == 0 {
			if err := a.Ring.Expect(s.Fd(), rng.Int64N(1<<(1+rng.IntN(20)))); err != nil {
				return err
			}
		}
		return a.Echo(s)
	}
}

func impairedTraffic(t *testing.T, l *netlab.Lab, a *ringapp.App, seed uint64, long bool) {
	t.Helper()
	many, bulk := 30, 1<<20
	if long {
		many, bulk = soakConns, longBulk
	}
	qt.Check(t, qt.IsNil(hashedTrip(l, a.Addr, bulk, seed)))
	qt.Check(t, qt.IsNil(messages(l, a.Addr, 60, seed)))
	parallel(t, 2*many, func(i int) error {
		if i%2 == 0 {
			return messages(l, a.Addr, 10, seed+uint64(i))
		}
		return hashedTrip(l, a.Addr, bulk/many, seed+uint64(i))
	})
	waitFor(t, func() bool { return a.Port.Status().Stats.Conns == 0 })
}

// hashedTrip sends n bytes in pieces of random sizes, ends the stream, and
// expects what comes back to have the same hash.
func hashedTrip(l *netlab.Lab, addr string, n int, seed uint64) error {
	c, err := tryDial(l, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	sent, got, rng := sha256.New(), sha256.New(), rand.New(rand.NewPCG(seed, 2))
	ended := make(chan error, 1)
	go func() {
		ended <- func() error {
			for left := n; left > 0; {
				piece := randomBytes(rng, min(left, 1+rng.IntN(1<<(1+rng.IntN(16)))))
				sent.Write(piece)
				if _, err := c.Write(piece); err != nil {
					return fmt.Errorf("send: %w", err)
				}
				left -= len(piece)
			}
			return c.CloseWrite()
		}()
	}()
	back, err := io.Copy(got, c)
	if err := errors.Join(err, <-ended); err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", back, n, err)
	}
	if int(back) != n || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		return fmt.Errorf("%d bytes came back of %d, and they differ", back, n)
	}
	return nil
}

// messages sends n short messages, each when the one before has come back.
func messages(l *netlab.Lab, addr string, n int, seed uint64) error {
	c, err := tryDial(l, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	rng, buf := rand.New(rand.NewPCG(seed, 3)), make([]byte, 2000)
	for i := range n {
		m := randomBytes(rng, 1+rng.IntN(2000))
		if _, err := c.Write(m); err != nil {
			return fmt.Errorf("send message %d of %d: %w", i, n, err)
		}
		if _, err := io.ReadFull(c, buf[:len(m)]); err != nil {
			return fmt.Errorf("answer to message %d of %d: %w", i, n, err)
		}
		if !bytes.Equal(buf[:len(m)], m) {
			return fmt.Errorf("message %d of %d bytes came back changed", i, len(m))
		}
	}
	return c.CloseWrite()
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}
