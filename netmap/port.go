package netmap

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/netmap/portspec"
	"golang.org/x/sys/unix"
)

// Port is an open port: rings of whole frames. It is used by one goroutine at a
// time; Wake alone may be called from any. Ports of one NIC, or of one Memory, are
// independent of each other.
type Port struct {
	spec portspec.Spec
	mem  *Memory
	dev  *device // of a NIC
	opts Options

	rx []rxRing // open ones
	tx []txRing

	ifAt    int  // of the netmap_if in the memory's region
	chained bool // it has extra buffers
	epfd    int
	wake    int // eventfd
	left    bool
	leftFd  int       // eventfd, readable while the program has slots
	looked  time.Time // whether the NIC is there
	gone    error
	ending  []func() error
	closed  bool
	closeMu sync.Mutex
}

type rxRing struct {
	*ring
	from rxSide
}

type txRing struct {
	*ring
	to txSide
}

// Name is the port's name.
func (p *Port) Name() string { return p.spec.String() }

// Spec is the port's name, taken apart.
func (p *Port) Spec() portspec.Spec { return p.spec }

// Memory is where the port has its rings and buffers.
func (p *Port) Memory() *Memory { return p.mem }

// NumRX and NumTX are how many rings are open; those of the host come last.
func (p *Port) NumRX() int { return len(p.rx) }

// NumTX is the number of TX rings, see NumRX.
func (p *Port) NumTX() int { return len(p.tx) }

// RX is one of the rings of received frames, from 0 to NumRX-1. Ring.RingID is the
// NIC's queue, or for the host's rings the number behind.
func (p *Port) RX(i int) *Ring { return p.rx[i].n }

// TX is one of the rings of frames to send, from 0 to NumTX-1.
func (p *Port) TX(i int) *Ring { return p.tx[i].n }

// IfOffset is where in the memory's region the port's struct netmap_if begins:
// nr_offset.
func (p *Port) IfOffset() int { return p.ifAt }

// Mode says where the XDP program of the NIC runs, and, if in generic mode because
// native was refused, why. It is ModeAuto for a port without one.
func (p *Port) Mode() (mode bpf.XDPMode, fallback string) {
	devices.Lock()
	defer devices.Unlock()
	if p.dev == nil || p.dev.raw == nil {
		return bpf.ModeAuto, ""
	}
	return p.dev.raw.Mode()
}

// ZeroCopy says whether the driver itself reads and writes the buffers.
func (p *Port) ZeroCopy() bool {
	for _, r := range p.rx {
		if q, ok := r.from.(*rxQueue); ok && q.sock.ZeroCopy() {
			return true
		}
	}
	for _, r := range p.tx {
		if q, ok := r.to.(*txQueue); ok && q.sock.ZeroCopy() {
			return true
		}
	}
	return false
}

// Stats reads the counters. It is called by the goroutine that has the port.
func (p *Port) Stats() (s Stats, err error) {
	if p.closed {
		return s, ErrClosed
	}
	for _, r := range p.rx {
		st, e := r.from.stats()
		s.RX, err = append(s.RX, st), errors.Join(err, e)
	}
	for _, r := range p.tx {
		st, e := r.to.stats()
		s.TX, err = append(s.TX, st), errors.Join(err, e)
	}
	return s, err
}

// RxSync gives the slots before Head back to the port, and makes received frames
// available. It never blocks. An error of one ring leaves the others as good as ever.
func (p *Port) RxSync() (err error) {
	if p.closed {
		return ErrClosed
	}
	left := false
	for i := range p.rx {
		r := &p.rx[i]
		head, e := r.accept()
		if e == nil {
			e = r.from.sync(r.ring, head)
			r.publish()
		}
		if e != nil {
			err = errors.Join(err, p.wrap("receive", e))
		}
		left = left || r.waiting()
	}
	p.notice(left)
	return err
}

// TxSync sends the slots before Head, and gives back those that were sent. It never
// blocks: what the kernel does not take now is sent by a later TxSync or Poll. A
// frame that cannot be sent is dropped, and the error is an ErrFrame.
func (p *Port) TxSync() (err error) {
	if p.closed {
		return ErrClosed
	}
	for i := range p.tx {
		r := &p.tx[i]
		head, e := r.accept()
		if e == nil {
			e = r.to.sync(r.ring, head)
			r.publish()
		}
		if e != nil {
			err = errors.Join(err, p.wrap("send", e))
		}
	}
	return err
}

func (p *Port) wrap(op string, err error) error {
	return fmt.Errorf("%s on %s: %w", op, p.spec.Port(), err)
}

// Close gives everything back: a NIC is as it was before, when its last port is
// closed. The rings are gone afterwards. It may be called twice.
func (p *Port) Close() error {
	p.closeMu.Lock()
	defer p.closeMu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	for _, r := range p.rx {
		r.from.end(r.ring)
	}
	for _, r := range p.tx {
		r.to.end(r.ring)
	}
	p.freeExtra()
	var errs []error
	for i := len(p.ending) - 1; i >= 0; i-- {
		errs = append(errs, p.ending[i]())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close %s: %w", p.spec.Port(), err)
	}
	return nil
}

// atEnd has something done by Close, the last first.
func (p *Port) atEnd(f func() error) { p.ending = append(p.ending, f) }

// layIf lays out the netmap_if: by the total of rings that the device has.
func (p *Port) layIf(n numbers) error {
	total := n.tx + n.rx + 2*n.host
	size := ifSize + total*8
	at, err := p.mem.area.alloc(size)
	if err != nil {
		return err
	}
	p.atEnd(func() error { p.mem.area.free(at); return nil })
	p.ifAt = at
	mem := p.mem.region[at : at+size]
	clear(mem)
	h := p.header()
	copy(h.Name[:15], p.spec.Port())
	h.Version = apiVersion
	h.TxRings, h.RxRings, h.HostTxRings, h.HostRxRings = uint32(n.tx), uint32(n.rx), uint32(n.host), uint32(n.host)
	offsets := unsafe.Slice((*int64)(unsafe.Add(unsafe.Pointer(&mem[0]), ifSize)), total)
	for _, r := range p.tx {
		offsets[r.n.RingID] = int64(r.at - at)
	}
	for _, r := range p.rx {
		offsets[n.tx+n.host+int(r.n.RingID)] = int64(r.at - at)
	}
	return nil
}

func (p *Port) header() *ifHeader { return (*ifHeader)(unsafe.Pointer(&p.mem.region[p.ifAt])) }

// chainExtra gives the program buffers by way of the netmap_if.
func (p *Port) chainExtra(n int) error {
	bufs := make([]uint32, n)
	if have := p.mem.Alloc(bufs); have < n {
		p.mem.Free(bufs[:have])
		return noBuffers(p.mem, n, have)
	}
	for i, b := range bufs {
		next := uint32(0)
		if i+1 < n {
			next = bufs[i+1]
		}
		*(*uint32)(unsafe.Pointer(&p.mem.Buf(b)[0])) = next
	}
	if n > 0 {
		p.header().BufsHead, p.chained = bufs[0], true
	}
	return nil
}

// freeExtra takes back what the program has left in the chain.
func (p *Port) freeExtra() {
	if !p.chained {
		return
	}
	b := p.header().BufsHead
	for range p.opts.ExtraBufs {
		mem := p.mem.Buf(b)
		if mem == nil {
			return
		}
		next := *(*uint32)(unsafe.Pointer(&mem[0]))
		p.mem.Free([]uint32{b})
		b = next
	}
}

// notice keeps Fd readable while the program has slots that it has not looked at.
func (p *Port) notice(left bool) {
	if left == p.left {
		return
	}
	p.left = left
	if left {
		_, _ = unix.Write(p.leftFd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		return
	}
	var b [8]byte
	_, _ = unix.Read(p.leftFd, b[:])
}
