package tlsring

import (
	"io"
	"net"
	"sync"
	"time"
)

// wire is what crypto/tls reads from and writes to: the encrypted side of a connection.
// While the handshake lasts its goroutine waits in Read; afterwards only the ring's
// goroutine uses it, and nothing waits.
type wire struct {
	send func(b []byte) error // into the ring's TX slots; after the handshake

	mu     sync.Mutex
	more   sync.Cond
	in     []byte // received and not read
	lent   []byte // the same, and behind it: the payload of a slot that is looked at
	out    []byte // of the handshake, to be sent by the ring
	wrote  func() // tells the ring of it
	open   bool   // the handshake is over
	eof    bool   // nothing follows
	closed bool
}

// wouldBlock says that nothing more has arrived. crypto/tls goes on after it, as it is
// temporary.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing has arrived" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// Read implements net.Conn.
func (w *wire) Read(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.in) == 0 && len(w.lent) == 0 {
		switch {
		case w.closed:
			return 0, net.ErrClosed
		case w.eof:
			return 0, io.EOF
		case w.open:
			return 0, wouldBlock{}
		}
		w.more.Wait()
	}
	from := &w.in
	if len(w.in) == 0 {
		from = &w.lent
	}
	n := copy(b, *from)
	*from = (*from)[n:]
	return n, nil
}

// Write implements net.Conn.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return 0, net.ErrClosed
	}
	if w.open {
		w.mu.Unlock()
		if err := w.send(b); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	w.out = append(w.out, b...)
	w.mu.Unlock()
	w.wrote()
	return len(b), nil
}

// feed adds what has arrived, and returns how much waits.
func (w *wire) feed(b []byte) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.in = append(w.in, b...)
	w.more.Signal()
	return len(w.in)
}

// lend has Read take b after what was fed; unlend keeps what is left of it.
func (w *wire) lend(b []byte) { w.lent = b }

func (w *wire) unlend() {
	w.in = append(w.in, w.lent...)
	w.lent = nil
}

// end notes that nothing follows.
func (w *wire) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.eof = true
	w.more.Signal()
}

// finish ends the handshake's time.
func (w *wire) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = true
}

// takeOut returns what the handshake has written.
func (w *wire) takeOut() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.out
	w.out = nil
	return b
}

// Close implements net.Conn. The socket is the server's to close.
func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.more.Signal()
	return nil
}

// The rest of net.Conn, of which crypto/tls makes no use that matters here.

func (w *wire) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (w *wire) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }
