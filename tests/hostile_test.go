package tests

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/ringapp"
	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// stream is what an application got from a connection.
type stream struct {
	data []byte
	end  error // nil is an orderly end
}

// reader is a server that reads one connection at a time.
type reader interface {
	port() uint16
	ready(bytes bool) // returns when it reads the connection; bytes have been sent, or not
	result() stream   // when it has ended
}

// kernelReader reads from a socket, as any program does.
type kernelReader struct{ results chan stream }

func newKernelReader(t *testing.T, l *netlab.Lab) *kernelReader {
	t.Helper()
	k := &kernelReader{make(chan stream, 1)}
	ln, err := l.Server.Listen(t.Context(), "tcp", net.JoinHostPort(l.ServerIP4.String(), "7001"))
	qt.Assert(t, qt.IsNil(err))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b, err := io.ReadAll(c)
			c.Close()
			k.results <- stream{b, err}
		}
	}()
	t.Cleanup(func() { ln.Close(); <-ended })
	return k
}

func (k *kernelReader) port() uint16   { return 7001 }
func (k *kernelReader) ready(bool)     {}
func (k *kernelReader) result() stream { return <-k.results }

// ringReader reads from a ring.
type ringReader struct {
	t    *testing.T
	a    *ringapp.App
	seen int
	data []byte // of the application's goroutine
}

func newRingReader(t *testing.T, l *netlab.Lab, o pasteapi.Options, late bool) *ringReader {
	t.Helper()
	r := &ringReader{t: t, a: &ringapp.App{Late: late}}
	r.a.OnData = func(a *ringapp.App, s *pasteapi.Slot) error {
		r.data = append(r.data, a.Ring.RX().Payload(s)...)
		return nil
	}
	o.Pool = newPool(t, 64<<20)
	r.a.Start(t, l, o, net.JoinHostPort(l.ServerIP4.String(), "7000"))
	return r
}

func (r *ringReader) port() uint16 { return 7000 }

// A late application registers a connection only when bytes wait in it.
func (r *ringReader) ready(bytes bool) {
	if r.a.Late == bytes {
		waitFor(r.t, func() bool { return r.a.Port.Status().Stats.Conns == 1 })
	}
}

func (r *ringReader) result() (s stream) {
	waitFor(r.t, func() (ended bool) {
		r.a.Do(func() {
			if ended = len(r.a.Causes) > r.seen; ended {
				s = stream{r.data, r.a.Causes[r.seen]}
				r.seen, r.data = r.seen+1, nil
			}
		})
		return ended
	})
	waitFor(r.t, func() bool { return r.a.Port.Status().Stats.Conns == 0 })
	return s
}

// A peer that sends what no TCP would: overlaps with other content, segments out
// of the window, of long ago, with wrong checksums or without their end, flags
// that make no sense. Whatever it is, an application on a ring gets what an
// application on a socket gets, over each way in: the same bytes, the same
// acknowledgements, the same end.
func TestHostilePeer(t *testing.T) {
	soak(t, func(t *testing.T, seed uint64, long bool) {
		conns := uint64(40)
		if long {
			conns = soakConns
		}
		l := newLab(t, netlab.Config{})
		link := newRawLink(t, l)
		sport := uint16(20000)
		want, trace := make([]stream, conns), make([][]string, conns)
		kernel := newKernelReader(t, l)
		ends := map[string]int{}
		for i := range conns {
			sport++
			want[i], trace[i] = play(t, link, kernel, sport, seed+i)
			ends[fmt.Sprint(reason(want[i].end))]++
		}
		t.Logf("on a socket the streams ended with %v", ends)
		for _, late := range []bool{false, true} {
			for _, way := range waysIn {
				name := way.name
				if late {
					name += ", registered late"
				}
				t.Run(name, func(t *testing.T) {
					r := newRingReader(t, l, way.options(l.ServerDev), late)
					for i := range conns {
						sport++
						got, steps := play(t, link, r, sport, seed+i)
						same(t, seed+i, trace[i], steps, want[i], got)
					}
					r.a.Stop(t)
				})
			}
		}
	})
}

// reason is how a stream ended, without the words around it.
func reason(err error) error {
	if errors.Is(err, unix.ECONNRESET) {
		return unix.ECONNRESET
	}
	return err
}

func same(t *testing.T, seed uint64, wantSteps, steps []string, want, got stream) {
	t.Helper()
	for i := range min(len(steps), len(wantSteps)) {
		if steps[i] != wantSteps[i] {
			t.Errorf("seed %d, step %d:\n got %s\nwant %s\nafter %q", seed, i, steps[i], wantSteps[i], steps[:i])
			return
		}
	}
	qt.Check(t, qt.Equals(len(steps), len(wantSteps)), qt.Commentf("seed %d", seed))
	qt.Check(t, qt.Equals(reason(got.end), reason(want.end)), qt.Commentf("seed %d, %q", seed, steps))
	if !bytes.Equal(got.data, want.data) {
		n := 0
		for n < min(len(got.data), len(want.data)) && got.data[n] == want.data[n] {
			n++
		}
		t.Errorf("seed %d: %d bytes, want %d; they differ from byte %d on; %q", seed, len(got.data), len(want.data), n, steps)
	}
}

// play makes a connection and does to it what the seed says. It returns what the
// server read, and what the peer did, with the acknowledgement after it.
func play(t *testing.T, link *rawLink, r reader, sport uint16, seed uint64) (stream, []string) {
	t.Helper()
	p, err := link.connect(sport, r.port())
	qt.Assert(t, qt.IsNil(err))
	s := &script{p: p, rng: rand.New(rand.NewPCG(seed, 4)), ends: map[uint32]bool{}}
	r.ready(false)
	qt.Assert(t, qt.IsNil(s.begin()))
	r.ready(true)
	qt.Assert(t, qt.IsNil(s.run()), qt.Commentf("seed %d, %q", seed, s.steps))
	got := r.result()
	// Its own end, which nobody waits for.
	qt.Assert(t, qt.IsNil(p.send(segment{flags: rst}, p.next)))
	return got, s.steps
}

// steeredSize is the payload from which on a segment is steered by default.
const steeredSize = 1400

// script is what a hostile peer does.
type script struct {
	p     *rawPeer
	rng   *rand.Rand
	steps []string
	ends  map[uint32]bool // offsets where segments have ended
	long  bool            // the last one is steered whatever the copybreak is
}

func (s *script) begin() error {
	// Two segments, so that one is below and one above every copybreak.
	first := randomBytes(s.rng, prefix)
	return errors.Join(s.p.send(segment{payload: first[:1440]}, 0), s.p.send(segment{payload: first[1440:]}, 1440))
}

func (s *script) run() error {
	if err := s.barrier(); err != nil {
		return err
	}
	for range 60 {
		if s.p.gone {
			break
		}
		if err := s.step(); err != nil {
			return err
		}
	}
	return s.finish()
}

// barrier waits, and notes what the server has acknowledged.
func (s *script) barrier() error {
	err := s.p.barrier()
	s.steps = append(s.steps, fmt.Sprintf("acknowledged %d, reset %t", s.p.next, s.p.gone))
	return err
}

func (s *script) finish() error {
	if err := s.barrier(); err != nil || s.p.gone {
		return err
	}
	if s.rng.IntN(4) == 0 {
		s.steps = append(s.steps, "reset")
		return s.p.send(segment{flags: rst}, s.p.next)
	}
	n := s.rng.IntN(1200)
	s.steps = append(s.steps, fmt.Sprintf("end with %d bytes", n))
	if err := s.p.send(segment{flags: fin, payload: randomBytes(s.rng, n)}, s.p.next); err != nil {
		return err
	}
	return s.barrier()
}

// step sends one segment. A segment without payload goes another way than one
// with, and what it does depends on what TCP has seen before it.
func (s *script) step() error {
	name, at, seg := s.choose()
	alone := len(seg.payload) == 0 || seg.flags&(syn|rst) != 0
	// A short one may overtake long ones before it, as on any network.
	overtakes := len(seg.payload) < steeredSize && s.long
	s.long = len(seg.payload) >= steeredSize
	if alone || overtakes {
		if err := s.barrier(); err != nil || s.p.gone {
			return err
		}
	}
	s.steps = append(s.steps, fmt.Sprintf("%s at %d, %d bytes", name, int32(at), len(seg.payload)))
	s.ends[at+uint32(len(seg.payload))] = true
	if err := s.p.send(seg, at); err != nil {
		return err
	}
	if alone || s.rng.IntN(3) == 0 {
		return s.barrier()
	}
	return nil
}

// choose draws a segment: its name, its place in the stream, and what is wrong
// with it. Content is random everywhere, so it shows which of two segments for
// the same place was taken.
func (s *script) choose() (name string, at uint32, seg segment) {
	rng, next := s.rng, s.p.next
	size := 1 + rng.IntN(1<<(1+rng.IntN(10)))
	if rng.IntN(4) == 0 {
		size = steeredSize + rng.IntN(40)
	}
	seg.payload = randomBytes(rng, size)
	n := uint32(len(seg.payload))
	// Of segments ahead that overlap TCP prefers one that joins on exactly to
	// another, if that one's memory has room: not even two sockets need agree on that.
	near := next + rng.Uint32N(3000)
	for s.ends[near] {
		near++
	}
	switch rng.IntN(22) {
	case 0, 1, 2:
		return "next", next, seg
	case 3, 4, 5:
		return "ahead", near, seg
	case 6, 7:
		return "across", next - min(1+rng.Uint32N(n), next), seg
	case 8:
		return "old", rng.Uint32N(next - n + 1), seg
	case 9:
		return "far ahead", next + 1<<24 + rng.Uint32N(1<<29), seg
	case 10:
		return "far behind", next - 1<<24 - rng.Uint32N(1<<29), seg
	case 11:
		seg.breakSum = true
		return "wrong checksum", near, seg
	case 12:
		seg.tsval = -(1 + rng.Uint32N(1<<19)) & (1<<32 - 1)
		return "old timestamp", near, seg
	case 13:
		seg.noTimestamp = true
		return "no timestamp", near, seg
	case 14:
		seg.flags = syn
		return "SYN", near, seg
	case 15:
		seg.flags = ack
		return "without ACK", near, seg
	case 16:
		// Not where the server waits, nor at the end of what it has ahead: both
		// are believed.
		seg.flags, seg.payload = rst, nil
		return "RST ahead", next + 10_000 + rng.Uint32N(10_000), seg
	case 17:
		seg.ack = 1<<20 + rng.Uint32N(1<<20)
		return "acknowledges what was not sent", near, seg
	case 18:
		seg.cut = 1 + rng.IntN(int(n))
		return "cut short", near, seg
	case 19:
		seg.pad = min(1+rng.IntN(60), 1448-size) // as the MTU allows
		return "with a trailer", near, seg
	case 20:
		seg.breakIP = true
		return "wrong IP checksum", near, seg
	default:
		seg.foreign = true
		return "for another host", near, seg
	}
}
