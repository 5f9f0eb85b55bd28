package netmapdev

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// pstBinding is a file's share of a port of connections.
type pstBinding struct {
	port   *pst
	tx, rx []*pstRing
	flags  uint64
	ifMem  []byte // struct netmap_if, and the offsets of rings behind it
	extra  uint32 // buffers that the program was given
}

// newPSTBinding picks the rings that a file asks for.
func newPSTBinding(p *pst, req *register) (*pstBinding, error) {
	b := &pstBinding{port: p, flags: req.flags}
	rings := p.rings
	switch req.mode {
	case modeAllNIC, modeNull:
	case modeOneNIC:
		i := int(req.ringID)
		if i >= len(rings) {
			return nil, fmt.Errorf("%s: ring %d of %d: %w", p.name, i, len(rings), unix.EINVAL)
		}
		rings = rings[i : i+1]
	case modeSW, modeNICSW, modeOneSW:
		return nil, fmt.Errorf("%s: a port of connections has no host rings: %w", p.name, unix.EINVAL)
	default:
		return nil, fmt.Errorf("mode %d: %w", req.mode, unix.EINVAL)
	}
	for _, r := range rings {
		if r.exclusive || req.flags&flagExclusive != 0 && r.users > 0 {
			return nil, fmt.Errorf("%s: another file has the ring: %w", p.name, unix.EBUSY)
		}
	}
	if req.flags&flagRXOnly == 0 {
		b.tx = rings
	}
	if req.flags&flagTXOnly == 0 {
		b.rx = rings
	}
	if err := b.describe(); err != nil {
		return nil, err
	}
	for _, r := range rings {
		r.users++
		r.exclusive = req.flags&flagExclusive != 0
	}
	b.nif().bufsHead, b.extra = p.mem.takeExtra(req.extraBufs)
	return b, nil
}

func (b *pstBinding) nif() *netmapIf { return at[netmapIf](b.ifMem) }

// describe makes the file's struct netmap_if. Of rings that are not the file's there
// is no offset.
func (b *pstBinding) describe() (err error) {
	p := b.port
	head, n := int(unsafe.Sizeof(netmapIf{})), len(p.rings)
	if b.ifMem, err = p.mem.arena.take(head + 2*8*n); err != nil {
		return err
	}
	nif := b.nif()
	copy(nif.name[:len(nif.name)-1], p.name)
	nif.version = apiLeast
	nif.txRings, nif.rxRings = uint32(n), uint32(n)
	set := func(i int, ring *pasteapi.NetmapRing) {
		*at[int64](b.ifMem[head+8*i:]) = int64(uintptr(unsafe.Pointer(ring)) - uintptr(unsafe.Pointer(nif)))
	}
	for _, r := range b.tx {
		set(int(r.TX().RingID), r.TX())
	}
	for _, r := range b.rx {
		set(n+int(r.RX().RingID), r.RX())
	}
	return nil
}

func (b *pstBinding) where() *memory { return b.port.mem }

func (b *pstBinding) fill(req *register) {
	b.port.fill(req)
	req.extraBufs = b.extra
	req.offset = b.port.mem.offset(unsafe.Pointer(b.nif()))
}

func (b *pstBinding) wakes() (fds []int) {
	for _, r := range b.rx {
		fds = append(fds, r.wake)
	}
	return fds
}

func (b *pstBinding) sync(tx bool) error {
	if tx {
		return eachRing(b.tx, (*pstRing).txSync)
	}
	return eachRing(b.rx, (*pstRing).rxSync)
}

func eachRing(rings []*pstRing, do func(*pstRing) error) error {
	var errs []error
	for _, r := range rings {
		errs = append(errs, do(r))
	}
	return errors.Join(errs...)
}

func (r *pstRing) txSync() error {
	r.Lock()
	defer r.Unlock()
	return r.TxSync()
}

func (r *pstRing) rxSync() error {
	r.Lock()
	defer r.Unlock()
	_, err := r.RxSync()
	return err
}

func (b *pstBinding) poll(events int16) (found int16, soon time.Duration) {
	if b.flags&flagNoTXPoll == 0 || events&wantTX != 0 {
		for _, r := range b.tx {
			if r.txSync() != nil {
				found |= unix.POLLERR
			}
			if n := r.TX(); n.Cur != n.Tail {
				found |= events & wantTX
			}
		}
	}
	if events&wantRX == 0 && b.flags&flagDoRXPoll == 0 {
		return found, 0
	}
	for _, r := range b.rx {
		if r.rxSync() != nil {
			found |= unix.POLLERR
		}
		if n := r.RX(); n.Cur != n.Tail {
			found |= events & wantRX
		} else if n.Head != n.Tail {
			soon = heldStep
		}
	}
	return found, soon
}

// heldStep is how often to look while the program holds slots that it has seen: then
// the ring wakes nobody.
const heldStep = time.Millisecond

func (b *pstBinding) release() error {
	for _, r := range b.port.rings {
		for _, mine := range append(b.tx[:len(b.tx):len(b.tx)], b.rx...) {
			if r == mine {
				r.users--
				r.exclusive = false
				break
			}
		}
	}
	m, head := b.port.mem, b.nif().bufsHead
	m.arena.give(b.ifMem)
	err := b.port.release()
	m.giveExtra(head, b.extra, func(buf uint32) bool { return b.port.d.held(m, buf) })
	return err
}
