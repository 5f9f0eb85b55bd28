package pasteapi

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/pasteapi/internal/conns"
	"github.com/pastenet/paste/pasteapi/internal/trace"
)

func init() { tracePatience = time.Hour } // a machine may stand still

// traced is a trace that runs until stop is called, or all ports are closed.
type traced struct {
	stop   context.CancelFunc
	end    chan error
	events []TraceEvent // after the end
	lost   uint64
}

func startTrace(t *testing.T, o TraceOptions) *traced {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	tr := &traced{stop: cancel, end: make(chan error, 1)}
	started := make(chan struct{})
	go func() {
		var err error
		tr.lost, err = Trace(ctx, o, func(error) { close(started) }, func(e TraceEvent) error {
			tr.events = append(tr.events, e)
			return nil
		})
		tr.end <- err
	}()
	select {
	case <-started:
	case err := <-tr.end:
		t.Fatalf("the trace has not begun: %v", err)
	}
	return tr
}

func (tr *traced) wait(t *testing.T) {
	t.Helper()
	qt.Assert(t, qt.IsNil(testwait.Receive(t, "the trace's end", tr.end)))
}

// echoAll serves a connection until its peer has finished.
func echoAll(t *testing.T, r *Ring) {
	t.Helper()
	for open := true; open; {
		_, err := r.Poll(-1)
		qt.Assert(t, qt.IsNil(err))
		for seg := range r.Segments() {
			if seg.Closed() {
				open = false
				continue
			}
			qt.Assert(t, qt.IsNil(seg.Reply(seg.Payload())))
		}
		qt.Assert(t, qt.IsNil(r.TxSync()))
	}
}

// talkTo sends bytes in pieces of odd sizes, and returns what comes back, up to the end of
// as many.
func talkTo(c *net.TCPConn, data []byte) (back []byte, err error) {
	sent := make(chan error, 1)
	go func() {
		rng := rand.New(rand.NewSource(1))
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+rng.Intn(20_000))
			if _, err := c.Write(rest[:n]); err != nil {
				sent <- err
				return
			}
			rest = rest[n:]
		}
		sent <- c.CloseWrite()
	}()
	back = make([]byte, len(data))
	if _, err := io.ReadFull(c, back); err != nil {
		return nil, err
	}
	return back, <-sent
}

// TestTraceIsWhatWasSent: a trace has every byte that came in and went out, in order.
func TestTraceIsWhatWasSent(t *testing.T) {
	for name, mode := range map[string]ReceiveMode{"read": ReceiveAuto, "copied": ReceiveCopied} {
		t.Run(name, func(t *testing.T) {
			p := openLocal(t, Options{Receive: mode})
			r := p.Ring(0)
			fd, peer := tcpPair(t)
			other, otherPeer := tcpPair(t)
			defer unix.Close(fd)
			defer unix.Close(other)
			tr := startTrace(t, TraceOptions{PID: os.Getpid(), Snap: maxSnap, Conn: peer.LocalAddr().(*net.TCPAddr).AddrPort()})
			qt.Assert(t, qt.IsNil(r.Register(fd)))
			qt.Assert(t, qt.IsNil(r.Register(other)))
			_, err := otherPeer.Write([]byte("not wanted"))
			qt.Assert(t, qt.IsNil(err))

			data := make([]byte, 1<<20)
			rand.New(rand.NewSource(2)).Read(data)
			done := make(chan error, 1)
			go func() {
				back, err := talkTo(peer, data)
				if err == nil && !bytes.Equal(back, data) {
					err = io.ErrUnexpectedEOF
				}
				done <- err
			}()
			echoAll(t, r)
			for len(done) == 0 { // what a full socket has not taken yet
				_, err := r.Poll(0)
				qt.Assert(t, qt.IsNil(err))
			}
			qt.Assert(t, qt.IsNil(<-done))
			tr.stop()
			tr.wait(t)

			qt.Check(t, qt.Equals(tr.lost, 0))
			var in, out []byte
			ways := map[TraceWay]int{}
			for _, e := range tr.events {
				ways[e.Way]++
				qt.Assert(t, qt.Equals(e.Peer, peer.LocalAddr().(*net.TCPAddr).AddrPort()))
				qt.Check(t, qt.Equals(e.PID, os.Getpid()))
				qt.Check(t, qt.Equals(e.Len, len(e.Data)))
				to := &in
				if e.Way == TraceSent {
					to = &out
				}
				qt.Assert(t, qt.Equals(int(e.Seq), len(*to)))
				*to = append(*to, e.Data...)
			}
			qt.Check(t, qt.IsTrue(bytes.Equal(in, data)), qt.Commentf("%d bytes in", len(in)))
			qt.Check(t, qt.IsTrue(bytes.Equal(out, data)), qt.Commentf("%d bytes out", len(out)))
			qt.Check(t, qt.Equals(ways[TraceClosed], 1))
			qt.Check(t, qt.IsTrue(ways[TraceWay(name)] > 0), qt.Commentf("%v", ways))
		})
	}
}

// TestTraceEnds: a trace ends with the port, and there is one at a time.
func TestTraceEnds(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	controlNetns(t)
	_, err := Trace(t.Context(), TraceOptions{}, nil, nil)
	qt.Check(t, qt.ErrorIs(err, ErrNoPort))
	_, err = Trace(t.Context(), TraceOptions{Snap: maxSnap + 1}, nil, nil)
	qt.Check(t, qt.ErrorMatches(err, "trace 65537 bytes .*: must be 0 to 65536"))

	on := startTracing(slog.New(slog.DiscardHandler))
	defer on.stop()
	qt.Assert(t, qt.IsNotNil(on.l))
	_, err = Trace(t.Context(), TraceOptions{PID: 1 << 30}, nil, nil)
	qt.Check(t, qt.ErrorIs(err, ErrNoPort))

	// In this namespace there is no other. The reader's goroutines look for it there, too.
	readers, err := beginTraces(t.Context(), &TraceOptions{})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(readers, 1))
	_, err = beginTraces(t.Context(), &TraceOptions{})
	qt.Check(t, qt.ErrorMatches(err, "process [0-9]+: somebody else traces this port"))

	end := make(chan error, 1)
	go func() { end <- readers[0].read(t.Context(), func(TraceEvent) error { return nil }) }()
	on.stop()
	qt.Check(t, qt.IsNil(testwait.Receive(t, "the end of a trace of a closed port", end)))
	readers[0].conn.Close()
}

// TestTraceIsForTheOwner: another user, who is not root, is told nothing.
func TestTraceIsForTheOwner(t *testing.T) {
	controlNetns(t) // and to a thread of its own
	on := startTracing(slog.New(slog.DiscardHandler))
	defer on.stop()
	as := func(uid uintptr) {
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uid, ^uintptr(0))
		qt.Assert(t, qt.Equals(errno, 0))
	}
	as(65533)
	readers, err := beginTraces(t.Context(), &TraceOptions{})
	as(0)
	qt.Check(t, qt.ErrorIs(err, os.ErrPermission))
	qt.Check(t, qt.HasLen(readers, 0))
	qt.Check(t, qt.IsTrue(on.on.Begin(trace.NewSession(trace.Filter{}, 0))), qt.Commentf("it was begun"))
	on.on.End()

	// A stranger who listens at such an address is not believed, and keeps nobody from others.
	as(65532)
	theirs := startTracing(slog.New(slog.DiscardHandler))
	defer theirs.stop()
	as(0)
	as(65533)
	readers, err = beginTraces(t.Context(), &TraceOptions{})
	as(0)
	qt.Check(t, qt.HasLen(readers, 0)) // the other is root's
	qt.Check(t, qt.StringContains(err.Error(), "does not answer: permission denied"))
	qt.Check(t, qt.StringContains(err.Error(), "belongs to user 65532: permission denied"))

	readers, err = beginTraces(t.Context(), &TraceOptions{})
	qt.Check(t, qt.HasLen(readers, 2)) // root believes whom it likes
	qt.Check(t, qt.IsNil(err))
	for _, r := range readers {
		r.conn.Close()
	}
}

// TestSlowTracer: one that does not read slows nobody, and is told what it has lost. When
// it is gone the next one may come.
func TestSlowTracer(t *testing.T) {
	controlNetns(t)
	on := startTracing(slog.New(slog.DiscardHandler))
	defer on.stop()
	c := &conns.Conn{FD: 3, Cookie: 1, Peer: netip.MustParseAddrPort("10.0.0.2:4000"), Local: netip.MustParseAddrPort("10.0.0.1:80")}
	tap := trace.NewTap(&on.on, 0, func(int) *conns.Conn { return c })
	readers, err := beginTraces(t.Context(), &TraceOptions{Snap: 1024})
	qt.Assert(t, qt.IsNil(err))
	const n = 6000
	data := make([]byte, 1024)
	for range n {
		tap.Received(c, trace.Copied, 0, data) // it would stand here for ever
	}
	// From here on it reads, and says that it has enough.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	seen := uint64(0)
	qt.Assert(t, qt.IsNil(readers[0].read(ctx, func(TraceEvent) error { seen++; return nil })))
	qt.Check(t, qt.IsTrue(readers[0].lost > 0))
	qt.Check(t, qt.Equals(seen+readers[0].lost, n))
	readers[0].conn.Close()
	testwait.Until(t, "the end of the trace", func() bool { return !tap.On() })

	readers, err = beginTraces(t.Context(), &TraceOptions{})
	qt.Assert(t, qt.IsNil(err))
	readers[0].conn.Close()
	testwait.Until(t, "the end of a trace of a reader that is gone", func() bool { return !tap.On() })
}

// TestTraceOfDatagrams: they are told with the addresses that each has.
func TestTraceOfDatagrams(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", "127.0.0.1:0", "[::]:0"} {
		t.Run(listen, func(t *testing.T) {
			p := openLocal(t, Options{})
			r := p.Ring(0)
			_, local := udpSocket(t, r, listen)
			if local.Addr().IsUnspecified() {
				local = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), local.Port())
			}
			peer, from := udpPeer(t, "127.0.0.1:0")
			tr := startTrace(t, TraceOptions{PID: os.Getpid(), Snap: 100, Port: from.Port()})
			_, err := peer.WriteToUDPAddrPort([]byte("question"), local)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(next(t, r).Reply([]byte("answer"))))
			qt.Assert(t, qt.IsNil(r.TxSync()))
			tr.stop()
			tr.wait(t)
			qt.Assert(t, qt.HasLen(tr.events, 2))
			for i, want := range []string{"read question", "sent answer"} {
				e := tr.events[i]
				qt.Check(t, qt.Equals(string(e.Way)+" "+string(e.Data), want))
				qt.Check(t, qt.IsTrue(e.UDP))
				qt.Check(t, qt.Equals(e.Peer, from))
				qt.Check(t, qt.Equals(e.Local, local))
			}
		})
	}
}
