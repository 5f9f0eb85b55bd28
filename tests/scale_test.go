package tests

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/pasteapi"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// scaleVariable names the environment variable that has TestScale keep so many
// connections idle, come and go for scaleChurn, and say how fast others are served
// while a tenth is stalled.
const scaleVariable = "PASTE_SCALE"

const (
	scaleConns   = 4000        // idle ones, in the ordinary run
	scaleChurn   = time.Minute // when scaled up
	scaleMeasure = 10 * time.Second
	scaleWorkers = 16
	// idleMost is the most bytes of heap that an idle connection may take.
	idleMost = 4096
	// spareFrames is how many frames a ring keeps at most that are nowhere at the
	// moment, lest it asks the pool for each.
	spareFrames = 2048
)

// Many connections are registered and idle, others come and go: what an idle one
// takes is small, and what has gone leaves nothing behind: no descriptor, entry of
// a BPF map, frame or goroutine. Some stall; the others are served.
func TestScale(t *testing.T) {
	conns, long := scaleConns, false
	if text := os.Getenv(scaleVariable); text != "" {
		n, err := strconv.Atoi(text)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s=%s", scaleVariable, text))
		conns, long = n, true
	}
	s := newScale(t, conns)
	defer s.closeAll(t)
	empty := s.usage(t)
	s.open(t, conns)
	full := s.usage(t)
	qt.Check(t, qt.Equals(full.maps["steer_conns"], conns))
	qt.Check(t, qt.Equals(full.maps["ticket_sockets"], conns))
	each := (full.heap - empty.heap) / int64(conns)
	t.Logf("%d connections: %d bytes of heap each, %d of resident memory", conns, each, (full.resident-empty.resident)/int64(conns))
	qt.Check(t, qt.IsTrue(each <= idleMost), qt.Commentf("%d bytes of heap for an idle connection", each))

	churned, rate := s.churn(t, conns, long)
	t.Logf("%d connections came and went, %.0f/s", churned, rate)
	s.settle(t, "the descriptors and entries of connections that came and went", full)
	after := s.usage(t)
	t.Logf("resident: %d KiB without connections, %d KiB with them, %d KiB after the churn", empty.resident>>10, full.resident>>10, after.resident>>10)
	// As much as a quarter of the connections would take is none that adds up.
	qt.Check(t, qt.IsTrue(after.heap-full.heap < int64(conns)*idleMost/4), qt.Commentf("heap grew from %d to %d bytes", full.heap, after.heap))

	s.stall(t, long)
	s.closeAll(t)
	s.settle(t, "everything of the connections", empty)
	qt.Check(t, qt.HasLen(s.app.Errs, 0))
}

// scale is an echo server and the peers' descriptors. Both ends are this process's;
// a peer is a bare descriptor, so that the heap is the server's.
type scale struct {
	lab   *netlab.Lab
	app   *ringapp.App
	pool  interface{ Free() int }
	peers []int
	addrs []netip.Addr // of the peers
	next  atomic.Uint32
}

func newScale(t *testing.T, conns int) *scale {
	need := uint64(2*conns + 2*scaleWorkers + 200)
	var lim unix.Rlimit
	qt.Assert(t, qt.IsNil(unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)))
	lim.Cur = lim.Max
	qt.Assert(t, qt.IsNil(unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)))
	qt.Assert(t, qt.IsTrue(lim.Cur >= need), qt.Commentf("%d connections take %d descriptors, and the limit is %d (ulimit -Hn)", conns, need, lim.Cur))
	s := &scale{lab: newLab(t, netlab.Config{Subnet4: netip.MustParsePrefix("10.77.0.0/16")})}
	qt.Assert(t, qt.IsNil(s.addAddrs(2+conns/5000)))
	// What a peer does not read shall wait in the ring, not in its socket.
	qt.Assert(t, qt.IsNil(s.lab.Server.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/tcp_wmem", []byte("4096 16384 16384"), 0)
	})))
	pool := newPool(t, 256<<20)
	s.pool = pool
	s.app = new(ringapp.App).Start(t, s.lab, pasteapi.Options{NIC: s.lab.ServerDev, Receive: pasteapi.ReceiveSteered, Pool: pool,
		Copybreak: -1, MaxConns: conns + 2*scaleWorkers + 1000, TxLimit: 128 << 10}, net.JoinHostPort(s.lab.ServerIP4.String(), "7000"))
	// What begins with the first connection is not what each one takes.
	fd, err := s.dial(0)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(trip(fd, make([]byte, 1000))))
	unix.Close(fd)
	testwait.Until(t, "the end of the first connection", func() bool { return s.app.Ring.Stats().Conns == 0 })
	return s
}

// addAddrs gives the client's device more addresses: one has too few ports.
func (s *scale) addAddrs(n int) error {
	return s.lab.Client.Do(func() error {
		dev, err := netlink.LinkByName(s.lab.ClientDev)
		if err != nil {
			return err
		}
		for i := range n {
			s.addrs = append(s.addrs, netip.AddrFrom4([4]byte{10, 77, 1, byte(i + 1)}))
			a, err := netlink.ParseAddr(s.addrs[i].String() + "/16")
			if err != nil {
				return err
			}
			a.Flags |= unix.IFA_F_NOPREFIXROUTE
			if err := netlink.AddrAdd(dev, a); err != nil {
				return fmt.Errorf("add %v: %w", a, err)
			}
		}
		return nil
	})
}

// dial connects from the next address, with a receive buffer of so many bytes
// unless 0. Call it in the client's namespace, or not: it goes there.
func (s *scale) dial(buffer int) (fd int, err error) {
	from := s.addrs[int(s.next.Add(1))%len(s.addrs)]
	err = s.lab.Client.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	limit := unix.NsecToTimeval(int64(patience))
	errs := []error{
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}),
	}
	if buffer > 0 {
		errs = append(errs, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer))
	}
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: s.lab.ServerIP4.As4(), Port: 7000})
	}
	if errors.Is(err, unix.EALREADY) || errors.Is(err, unix.EISCONN) {
		err = nil // a signal came, and what follows waits
	}
	if err := errors.Join(append(errs, err)...); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect from %v: %w", from, err)
	}
	return fd, nil
}

// trip sends data and wants as many bytes back.
func trip(fd int, data []byte) error {
	for sent := 0; sent < len(data); {
		n, err := unix.Write(fd, data[sent:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
		sent += n
	}
	var b [4096]byte
	for got := 0; got < len(data); {
		n, err := unix.Read(fd, b[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if n == 0 {
			return fmt.Errorf("the stream ended after %d bytes of %d", got, len(data))
		}
		got += n
	}
	return nil
}

// open makes connections that have said something once.
func (s *scale) open(t *testing.T, n int) {
	s.peers = make([]int, n)
	for i := range s.peers {
		s.peers[i] = -1
	}
	work(t, n, func(i int) (err error) {
		// A tenth will stall, with little room.
		if s.peers[i], err = s.dial(map[bool]int{true: 4096}[i%10 == 0]); err == nil {
			err = trip(s.peers[i], make([]byte, 1000))
		}
		return err
	})
	qt.Assert(t, qt.IsFalse(t.Failed()))
}

// work calls f for each number below n, from some goroutines.
func work(t *testing.T, n int, f func(i int) error) {
	var next atomic.Int64
	parallel(t, scaleWorkers, func(int) error {
		for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
			if err := f(int(i)); err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
		}
		return nil
	})
}

// churn has n connections come and go, or more for scaleChurn. Most are reset, so
// that their ports are free again.
func (s *scale) churn(t *testing.T, n int, long bool) (count int64, rate float64) {
	var done atomic.Int64
	begun := time.Now()
	parallel(t, scaleWorkers, func(int) error {
		data := make([]byte, 1400)
		for {
			i := done.Add(1)
			if long && time.Since(begun) > scaleChurn || !long && i > int64(n) {
				done.Add(-1)
				return nil
			}
			fd, err := s.dial(0)
			if err != nil {
				return err
			}
			if i%4 != 0 { // a quarter goes without a word
				err = trip(fd, data)
			}
			if i%20 != 0 {
				err = errors.Join(err, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
			}
			if err = errors.Join(err, unix.Close(fd)); err != nil {
				return err
			}
		}
	})
	return done.Load(), float64(done.Load()) / time.Since(begun).Seconds()
}

// stall has a tenth of the connections send without reading, and the others served.
func (s *scale) stall(t *testing.T, long bool) {
	before := s.serve(t, long)
	work(t, len(s.peers)/10, func(i int) error { return stuff(s.peers[10*i]) })
	// What they have sent comes in first: then they are stalled, and not busy.
	var was, now uint64
	testwait.Until(t, "stalled connections", func() bool {
		was = now
		time.Sleep(300 * time.Millisecond)
		st := s.app.Ring.Stats()
		now = st.SteeredBytes + st.CopiedBytes + st.ReadBytes
		return was == now
	})
	with := s.serve(t, long)
	st := s.app.Ring.Stats()
	t.Logf("p99 of the others %v, and %v with a tenth of the connections stalled, ratio %.2f; %d frames held, %d dropped, %d given up",
		before, with, float64(with)/float64(before), st.Held, st.HeldDropped, len(s.peers)-int(st.Conns))
}

// stuff sends what a peer that does not read can send at once, at most 256 KiB.
func stuff(fd int) error {
	data := make([]byte, 64<<10)
	for range 4 {
		_, err := unix.SendmsgN(fd, data, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
			return nil // stuck, or given up already
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return nil
}

// serve asks the connections that do not stall, and returns the 99th percentile of
// the time that an answer takes.
func (s *scale) serve(t *testing.T, long bool) time.Duration {
	var mu sync.Mutex
	var all []time.Duration
	begun := time.Now()
	parallel(t, scaleWorkers, func(w int) error {
		rng, data := rand.New(rand.NewPCG(1, uint64(w))), make([]byte, 1000)
		var took []time.Duration
		for i := 0; long && time.Since(begun) < scaleMeasure || !long && i < 100; i++ {
			// Its own share of the connections, so that no two use one at once.
			k := rng.IntN(len(s.peers)/scaleWorkers)*scaleWorkers + w
			if k%10 == 0 {
				continue
			}
			asked := time.Now()
			if err := trip(s.peers[k], data); err != nil {
				return fmt.Errorf("connection %d: %w", k, err)
			}
			took = append(took, time.Since(asked))
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, took...)
		return nil
	})
	slices.Sort(all)
	return all[len(all)*99/100]
}

// closeAll ends the connections, and waits: a NIC's queue takes but so many frames.
// They do not end by a reset: one that is lost is not sent again, and the server
// would never hear of the end.
func (s *scale) closeAll(t *testing.T) {
	for len(s.peers) > 0 {
		n := min(64, len(s.peers))
		for _, fd := range s.peers[:n] {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
		s.peers = s.peers[n:]
		if !t.Failed() {
			testwait.Until(t, "the end of connections", func() bool { return int(s.app.Ring.Stats().Conns) <= len(s.peers) })
		}
	}
}
