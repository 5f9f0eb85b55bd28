package pasteapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/pasteapi/internal/trace"
)

// TraceEvent is some bytes of a connection that went through a ring, the end of one, or a
// datagram.
type TraceEvent struct {
	trace.Event
	PID int `json:"pid"` // the process whose ring it is
}

// TraceWay says how bytes went.
type TraceWay = trace.Way

// The values of TraceEvent.Way.
const (
	TraceSteered   = trace.Steered   // received in place, by a ticket
	TraceCopied    = trace.Copied    // copied by the verdict
	TraceRead      = trace.Read      // read from the socket
	TraceReclaimed = trace.Reclaimed // steered, and TCP did not take it: a duplicate, or damaged
	TraceClosed    = trace.Closed    // the connection's end
	TraceSent      = trace.Sent      // taken by the socket
)

// TraceWays are all values of TraceEvent.Way.
var TraceWays = []TraceWay{TraceSteered, TraceCopied, TraceRead, TraceReclaimed, TraceClosed, TraceSent}

// TraceOptions say what is traced. What is zero lets everything through.
type TraceOptions struct {
	PID  int            // one process; 0: all that have a port in this network namespace
	Port uint16         // of either end
	Peer netip.Prefix   // the peer's address
	Conn netip.AddrPort // the peer's end of one connection
	Snap int            // how many bytes of each event are wanted, up to 65536
}

// ErrNoPort means that no process has a port that could be traced.
var ErrNoPort = errors.New("no process with an open port")

// Trace calls each, one call at a time, with what goes through the rings of open ports, from now until ctx ends, which is no error. What is received is told when it is put into
// a slot, what is sent when its socket has taken it. It returns, too, when all those
// processes have closed their ports, or when each fails. started, if not nil, is called
// when the trace has begun; skipped says of which ports it has not, and why, while there
// are others.
//
// The processes do not wait for it: lost is how many events they had no room for. It is
// for root and for the owner of a process; of a process whose user is not this one, nor
// root, nothing is believed but by root.
func Trace(ctx context.Context, o TraceOptions, started func(skipped error), each func(TraceEvent) error) (lost uint64, err error) {
	if o.Snap < 0 || o.Snap > maxSnap {
		return 0, fmt.Errorf("trace %d bytes of each event: must be 0 to %d", o.Snap, maxSnap)
	}
	readers, err := beginTraces(ctx, &o)
	if len(readers) == 0 {
		return 0, fmt.Errorf("trace: %w", err)
	}
	if started != nil {
		started(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var wait sync.WaitGroup
	var errs []error
	for _, r := range readers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			defer r.conn.Close()
			err := r.read(ctx, func(e TraceEvent) error {
				mu.Lock()
				defer mu.Unlock()
				return each(e)
			})
			mu.Lock()
			defer mu.Unlock()
			lost += r.lost
			if err != nil {
				errs = append(errs, err)
				cancel()
			}
		}()
	}
	wait.Wait()
	return lost, errors.Join(errs...)
}

// traceReader is the reading end of a trace of one port.
type traceReader struct {
	conn *net.UnixConn
	in   *bufio.Scanner
	pid  int
	lost uint64
}

// beginTraces begins a trace of all ports in the calling thread's network namespace that
// let it; the error says which do not. Every user may listen at such an address, and is
// not to keep others from tracing theirs.
func beginTraces(ctx context.Context, o *TraceOptions) (readers []*traceReader, err error) {
	names, err := listeners(tracePrefix)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, name := range names {
		id, _, _ := strings.Cut(name, "/")
		if pid, err := strconv.Atoi(id); err != nil || o.PID != 0 && o.PID != pid {
			continue
		}
		var r *traceReader
		err := twice(ctx, func() (err error) { r, err = beginTrace(ctx, tracePrefix+name, o); return err })
		if errors.Is(err, os.ErrNotExist) {
			continue // it has ended meanwhile
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		readers = append(readers, r)
	}
	switch {
	case len(readers) > 0 || len(errs) > 0:
		return readers, errors.Join(errs...)
	case o.PID != 0:
		return nil, fmt.Errorf("process %d: %w in this network namespace", o.PID, ErrNoPort)
	}
	return nil, fmt.Errorf("%w in this network namespace", ErrNoPort)
}

func beginTrace(ctx context.Context, addr string, o *TraceOptions) (_ *traceReader, err error) {
	c, cred, err := ask(ctx, addr)
	if err != nil {
		return nil, err
	}
	r := &traceReader{conn: c, in: bufio.NewScanner(c), pid: int(cred.Pid)}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	// The longest line has the longest data, in base64.
	r.in.Buffer(nil, 2*maxSnap)
	c.SetDeadline(time.Now().Add(tracePatience))
	if err := json.NewEncoder(c).Encode(traceRequest{Filter: trace.Filter{Port: o.Port, Peer: o.Peer, Conn: o.Conn}, Snap: o.Snap}); err != nil && !errors.Is(err, unix.EPIPE) {
		return nil, fmt.Errorf("process %d: %w", r.pid, err)
	}
	a, err := r.next()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return nil, fmt.Errorf("process %d does not answer: %w", r.pid, os.ErrPermission)
	case err != nil:
		return nil, fmt.Errorf("process %d: %w", r.pid, err)
	case !a.Begun:
		return nil, fmt.Errorf("process %d: %s", r.pid, a.Error)
	}
	c.SetDeadline(time.Time{})
	return r, nil
}

// next reads a line.
func (r *traceReader) next() (a traceAnswer, err error) {
	if !r.in.Scan() {
		if err := r.in.Err(); err != nil {
			return a, err
		}
		return a, io.EOF
	}
	if err := json.Unmarshal(r.in.Bytes(), &a); err != nil {
		return a, fmt.Errorf("the answer was cut off, or is another version's: %w", err)
	}
	return a, nil
}

// read reads until the end of the port, or of ctx.
func (r *traceReader) read(ctx context.Context, each func(TraceEvent) error) error {
	stop := context.AfterFunc(ctx, func() {
		// What the process has sent is read to its end, but not for ever.
		r.conn.CloseWrite()
		r.conn.SetReadDeadline(time.Now().Add(tracePatience))
	})
	defer stop()
	for {
		if ctx.Err() != nil {
			r.conn.SetReadDeadline(time.Now().Add(tracePatience))
		}
		a, err := r.next()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), err != nil && ctx.Err() != nil:
			return nil // the port was closed, or does not say goodbye
		case err != nil:
			return fmt.Errorf("trace process %d: %w", r.pid, err)
		case a.End:
			r.lost = a.Lost
			return nil
		case a.Event != nil:
			r.lost = max(r.lost, a.Event.Lost)
			if err := each(TraceEvent{Event: *a.Event, PID: r.pid}); err != nil {
				return err
			}
		}
	}
}
