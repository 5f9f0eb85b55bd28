package pasteapi

import (
	"bufio"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/pastenet/paste/pasteapi/internal/trace"
)

// tracePrefix, the process's id and a number make the address of the abstract unix socket
// at which a Port hands out copies of what goes through it.
const tracePrefix = "@paste-trace/"

// maxSnap is the most bytes of an event that are handed out: those of the longest slot.
const maxSnap = 1 << 16

// tracePatience bounds how long either side waits for the other's next line, where one has
// to come: at the beginning, and after the reader has said that he has enough. Tests have
// more of it.
var tracePatience = 10 * time.Second

// traceRequest is the line that a reader sends.
type traceRequest struct {
	trace.Filter
	Snap int `json:"snap"` // bytes
}

// traceAnswer is one of the lines that it gets: first Begun or Error, then events, and in
// the end, if the port is not closed meanwhile, how many events were lost in all.
type traceAnswer struct {
	Begun bool         `json:"begun,omitempty"`
	Error string       `json:"error,omitempty"`
	Event *trace.Event `json:"event,omitempty"`
	End   bool         `json:"end,omitempty"`
	Lost  uint64       `json:"lost,omitempty"`
}

// tracing answers those who want to see what goes through a port's rings: root, and the
// owner of this process, one at a time.
type tracing struct {
	on trace.Switch
	l  *net.UnixListener // nil: there is none

	mu     sync.Mutex
	closed bool
	peers  map[*net.UnixConn]struct{}
	wait   sync.WaitGroup
}

// startTracing listens in the calling thread's network namespace. A port does without it
// where that cannot be.
func startTracing(log *slog.Logger) *tracing {
	t := &tracing{peers: map[*net.UnixConn]struct{}{}}
	l, err := listenAs(tracePrefix)
	if err != nil {
		log.Warn("this port cannot be traced", "cause", err)
		return t
	}
	t.l = l
	t.wait.Add(1)
	go t.serve()
	return t
}

func (t *tracing) serve() {
	defer t.wait.Done()
	for {
		peer, err := t.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors or memory
			continue
		}
		if !t.add(peer) {
			peer.Close()
			return
		}
		go func() {
			defer t.remove(peer)
			if mayAsk(peer) {
				t.answer(peer)
			}
		}()
	}
}

func (t *tracing) add(peer *net.UnixConn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.peers[peer] = struct{}{}
	t.wait.Add(1)
	return true
}

func (t *tracing) remove(peer *net.UnixConn) {
	peer.Close()
	t.mu.Lock()
	delete(t.peers, peer)
	t.mu.Unlock()
	t.wait.Done()
}

// answer serves one reader until he says that he has enough, or is gone.
func (t *tracing) answer(peer *net.UnixConn) {
	out := json.NewEncoder(peer)
	peer.SetReadDeadline(time.Now().Add(tracePatience))
	in := bufio.NewReaderSize(peer, 4096)
	line, err := in.ReadSlice('\n')
	if err != nil {
		return
	}
	var r traceRequest
	if err := json.Unmarshal(line, &r); err != nil || r.Snap < 0 || r.Snap > maxSnap {
		out.Encode(traceAnswer{Error: "the request is another version's"})
		return
	}
	s := trace.NewSession(r.Filter, r.Snap)
	if !t.on.Begin(s) {
		out.Encode(traceAnswer{Error: "somebody else traces this port"})
		return
	}
	defer t.on.End()
	enough := make(chan struct{})
	peer.SetReadDeadline(time.Time{})
	t.wait.Add(1)
	go func() {
		defer t.wait.Done()
		defer close(enough)
		in.ReadByte() // nothing comes but the end
	}()
	if out.Encode(traceAnswer{Begun: true}) == nil {
		t.stream(peer, s, enough)
	}
	peer.Close()
	<-enough
}

// stream writes the events of a session.
func (t *tracing) stream(peer *net.UnixConn, s *trace.Session, enough <-chan struct{}) {
	w := bufio.NewWriterSize(peer, 64<<10)
	out := json.NewEncoder(w)
	write := func(e trace.Event) error {
		s.Took(&e)
		err := out.Encode(traceAnswer{Event: &e})
		if err == nil && len(s.Events) == 0 {
			err = w.Flush()
		}
		return err
	}
	for {
		select {
		case e := <-s.Events:
			if write(e) != nil {
				return
			}
			continue
		case <-enough:
		}
		break
	}
	t.on.End()
	// Who has said that he has enough reads what is left, but not for ever.
	peer.SetWriteDeadline(time.Now().Add(tracePatience))
	for len(s.Events) > 0 {
		peer.SetWriteDeadline(time.Now().Add(tracePatience))
		if write(<-s.Events) != nil {
			return
		}
	}
	if out.Encode(traceAnswer{End: true, Lost: s.Lost()}) == nil {
		w.Flush()
	}
}

// stop ends everything. It may be called on nil.
func (t *tracing) stop() {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.closed = true
	for peer := range t.peers {
		peer.Close()
	}
	t.mu.Unlock()
	if t.l != nil {
		t.l.Close()
	}
	t.wait.Wait()
}
