package tlsring

import (
	"crypto/tls"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/pastenet/paste/internal/ringserve"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// Inner is what a Ring needs of a *pasteapi.Ring, whose documentation applies.
type Inner interface {
	ringserve.Ring
	Hold(fd int) error
	Release(fd int) error
}

// Ring is a ring of plaintext over one of TLS records. It is used as a *pasteapi.Ring is;
// methods that are not here are those of the inner ring.
type Ring struct {
	Inner
	pool   *pmem.Pool
	config *tls.Config
	rx, tx *pasteapi.NetmapRing
	sent   uint32 // TX slots up to here are encrypted
	syncs  uint64 // how often the inner TX ring was pushed

	conns   map[int]*conn // by descriptor
	pending []*conn       // that have something for which there was no slot
	reserve []uint32      // frames for Keep
	record  []byte        // payloads of several slots
	fed     bool          // handshakes have got something to do

	handshakes sync.WaitGroup
	mu         sync.Mutex
	events     []event // of handshakes
	spare      []event
}

// New makes a Ring over another one, with the pool of its port. Close it when the server
// has ended, and before the port.
func New(inner Inner, pool *pmem.Pool, config *tls.Config) (*Ring, error) {
	r := &Ring{Inner: inner, pool: pool, config: config, conns: map[int]*conn{}, syncs: 1}
	var err error
	if r.rx, err = newSlots(pool); err != nil {
		return nil, err
	}
	if r.tx, err = newSlots(pool); err != nil {
		return nil, errors.Join(err, freeSlots(pool, r.rx))
	}
	r.tx.Tail = slots - 1
	return r, nil
}

// Close gives the buffers back. All connections must have been unregistered.
func (r *Ring) Close() error {
	r.handshakes.Wait()
	r.pool.UnrefAll(r.reserve)
	return errors.Join(freeSlots(r.pool, r.rx), freeSlots(r.pool, r.tx))
}

// RX is the ring of received plaintext.
func (r *Ring) RX() *pasteapi.NetmapRing { return r.rx }

// TX is the ring of plaintext to send.
func (r *Ring) TX() *pasteapi.NetmapRing { return r.tx }

// Register puts a connected socket under the ring, and begins its handshake.
func (r *Ring) Register(fd int) error {
	if err := r.Inner.Register(fd); err != nil {
		return err
	}
	c := &conn{fd: fd}
	c.wire.more.L = &c.wire.mu
	c.wire.send = func(b []byte) error { return r.send(c, b) }
	c.wire.wrote = func() { r.tell(event{c: c}) }
	c.tls = tls.Server(&c.wire, r.config)
	r.conns[fd] = c
	r.handshakes.Add(1)
	go func() {
		defer r.handshakes.Done()
		err := c.tls.Handshake()
		r.tell(event{c: c, over: true, err: err})
	}()
	return nil
}

// Unregister takes a connection from the ring.
func (r *Ring) Unregister(fd int) error {
	c := r.conns[fd]
	if c == nil {
		return r.Inner.Unregister(fd)
	}
	var err error
	if c.sync == r.syncs {
		err = r.push() // else its bytes went to the descriptor's next owner
	}
	delete(r.conns, fd)
	c.gone = true
	_ = c.wire.Close() // ends its handshake
	// Nor may that one get what has arrived for this one.
	for rx, i := r.Inner.RX(), r.Inner.RX().Head; i != rx.Tail; i = rx.Next(i) {
		if s := rx.Slot(i); s.Fd() == fd {
			s.SetFd(nobody)
		}
	}
	return errors.Join(err, r.Inner.Unregister(fd))
}

// nobody is no descriptor that a process may have.
const nobody = 1<<31 - 1

// CloseCause tells, after a close notice, why a connection ended: nil for an orderly end.
func (r *Ring) CloseCause(fd int) error {
	if c := r.conns[fd]; c != nil && c.cause != nil {
		return c.cause
	}
	return r.Inner.CloseCause(fd)
}

// Poll encrypts and sends what is in the TX ring, waits, and decrypts.
func (r *Ring) Poll(timeout time.Duration) (int, error) {
	if err := r.encrypt(); err != nil {
		return 0, err
	}
	if len(r.pending) > 0 || !r.Inner.RX().Empty() {
		timeout = 0
	}
	_, err := r.Inner.Poll(timeout)
	r.syncs++
	if err != nil {
		return 0, err
	}
	if err := r.handshaken(); err != nil {
		return 0, err
	}
	if err = r.decrypt(); r.fed {
		r.fed = false
		runtime.Gosched() // there may be no other processor for them
	}
	return int(r.rx.Space()), err
}

// TxSync encrypts and sends what is in the TX ring.
func (r *Ring) TxSync() error {
	if err := r.encrypt(); err != nil {
		return err
	}
	return r.push()
}

func (r *Ring) push() error {
	err := r.Inner.TxSync()
	r.syncs++
	return err
}

// Expect changes nothing: plaintext comes by the record, in slots of one frame.
func (r *Ring) Expect(int, int64) error { return nil }

// Keep takes a slot's buffer out of the ring and puts a free one in its place.
func (r *Ring) Keep(s *pasteapi.Slot) (frame uint32, err error) {
	if len(r.reserve) == 0 {
		var batch [32]uint32
		r.reserve = append(r.reserve, batch[:r.pool.Alloc(batch[:])]...)
		if len(r.reserve) == 0 {
			return 0, pasteapi.ErrNoBuffers
		}
	}
	frame = s.BufIdx
	s.BufIdx = r.reserve[len(r.reserve)-1]
	s.Flags |= pasteapi.NS_BUF_CHANGED
	r.reserve = r.reserve[:len(r.reserve)-1]
	return frame, nil
}
