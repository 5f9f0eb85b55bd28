package netmapdev

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// connections is the kind of PASTE's ports, named "pst:name".
type connections struct{}

// pst is a port of TCP connections. Files of one name share it.
type pst struct {
	d       *Device
	name    string
	mem     *memory
	slots   int
	port    *pasteapi.Port
	ringMem []byte
	rings   []*pstRing
	files   int
	next    int             // ring of the next socket
	nics    map[string]bool // that the program has attached; the port itself has it
}

// pstRing is a pair of rings of it, for one thread at a time.
type pstRing struct {
	sync.Mutex
	*pasteapi.Ring
	port      *pst
	wake      int // readable when a sync would do something
	users     int // bindings
	exclusive bool
}

// mostRings is how many pairs of rings a port of connections has at most.
const mostRings = 64

func (connections) memory(d *Device, id uint16) (*memory, error) {
	m, err := d.memory(id, pstMemory, d.newPSTMemory)
	if err == nil && m.pool == nil {
		return nil, errors.Join(fmt.Errorf("memory %d is one of ports of frames: %w", id, unix.EINVAL), d.drop(m))
	}
	return m, err
}

func (connections) lend(region []byte, e *extmem) (*memory, error) { return lentPool(region, e) }
func (connections) pools(m *memory, to *poolsInfo)                 { m.pools(to) }

// pstName takes a name apart: what is before the colon, and behind it.
func pstName(name string) (family, id string, err error) {
	family, id, ok := strings.Cut(name, ":")
	if !ok || !strings.HasPrefix(family, "pst") || id == "" {
		return "", "", fmt.Errorf("%q: a port of connections is named pst:NAME: %w", name, unix.EINVAL)
	}
	return family, id, nil
}

// want is how many pairs of rings a request asks for, and slots in each ring: a power
// of two.
func want(name string, req *register) (rings, slots int, err error) {
	_, id, err := pstName(name)
	if err != nil {
		return 0, 0, err
	}
	if _, err := net.InterfaceByName(id); err == nil {
		return 0, 0, fmt.Errorf("%s: %s is a NIC, which NETMAP_REQ_PST_ATTACH gives to a port: %w", name, id, unix.EINVAL)
	}
	if rings = int(max(req.txRings, req.rxRings, 1)); rings > mostRings {
		return 0, 0, fmt.Errorf("%s: %d rings, and a port has at most %d: %w", name, rings, mostRings, unix.EINVAL)
	}
	slots = 1024
	if n := max(req.txSlots, req.rxSlots); n != 0 {
		slots = min(max(1<<bits.Len32(n-1), 64), 32768)
	}
	return rings, slots, nil
}

func (connections) describe(d *Device, name string, req *register) error {
	if p := d.ports[name]; p != nil {
		p.fill(req)
		return nil
	}
	rings, slots, err := want(name, req)
	if err == nil {
		(&pst{slots: slots, rings: make([]*pstRing, rings)}).fill(req)
	}
	return err
}

func (p *pst) fill(req *register) {
	req.txRings, req.rxRings = uint16(len(p.rings)), uint16(len(p.rings))
	req.hostTxRings, req.hostRxRings = 0, 0
	req.txSlots, req.rxSlots = uint32(p.slots), uint32(p.slots)
}

func (connections) bind(d *Device, name string, req *register, m *memory) (binding, error) {
	p := d.ports[name]
	if p == nil {
		var err error
		if p, err = openPST(d, name, req, m); err != nil {
			return nil, err
		}
		d.ports[name] = p
	}
	if p.mem != m {
		return nil, fmt.Errorf("%s: it is in memory %d: %w", name, p.mem.id, unix.EINVAL)
	}
	p.files++
	b, err := newPSTBinding(p, req)
	if err != nil {
		return nil, errors.Join(err, p.release())
	}
	return b, nil
}

// openPST opens a port with as many pairs of rings as are asked for. It has no NIC.
func openPST(d *Device, name string, req *register, m *memory) (p *pst, err error) {
	rings, slots, err := want(name, req)
	if err != nil {
		return nil, err
	}
	p = &pst{d: d, name: name, mem: m, slots: slots, nics: map[string]bool{}}
	for range rings {
		p.rings = append(p.rings, &pstRing{port: p})
	}
	if p.ringMem, err = m.arena.take(pasteapi.RingMemorySize(rings, slots)); err != nil {
		return nil, err
	}
	if err := p.open(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// open opens the port itself.
func (p *pst) open() (err error) {
	o := &p.d.opts
	p.port, err = pasteapi.Open(context.Background(), pasteapi.Options{Pool: p.mem.pool, Rings: len(p.rings), Slots: p.slots,
		RingMemory: p.ringMem, Receive: o.Receive, BPFFS: o.BPFFS, Logger: o.Logger})
	for i, r := range p.rings {
		if err != nil {
			return err
		}
		r.Ring = p.port.Ring(i)
		r.wake, err = r.EdgeFd()
	}
	return err
}

// release takes a file from the port, which the last one closes.
func (p *pst) release() error {
	if p.files--; p.files > 0 {
		return nil
	}
	delete(p.d.ports, p.name)
	return p.close()
}

func (p *pst) close() (err error) {
	for _, r := range p.rings {
		r.Lock() // whoever is in a sync, or comes later, finds it closed
		defer r.Unlock()
	}
	if p.port != nil {
		err = p.port.Close()
	}
	p.mem.arena.give(p.ringMem)
	return err
}

// whileSyncing does something for which each ring has to take its part in a sync.
func (p *pst) whileSyncing(do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), attachLimit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(time.Millisecond):
		}
		for _, r := range p.rings {
			_ = r.rxSync() // a broken ring is told to whoever syncs next
		}
	}
}

// attachLimit is how long giving or taking a NIC may take.
const attachLimit = time.Minute

// attachNIC gives the port a NIC. What comes in by one that cannot be steered is
// copied, as over any other interface, and the log is told.
func (p *pst) attachNIC(nic string) error {
	err := p.whileSyncing(func(ctx context.Context) error { return p.port.AttachNIC(ctx, nic) })
	if errors.Is(err, pasteapi.ErrNICInUse) || errors.Is(err, pasteapi.ErrFrameSize) || errors.Is(err, pasteapi.ErrClosed) {
		return err
	}
	if err != nil {
		p.d.opts.Logger.Warn("what comes in by the NIC is copied", "port", p.name, "nic", nic, "cause", err)
	}
	p.nics[nic] = err == nil
	return nil
}

func (p *pst) detachNIC(nic string) error {
	has := p.nics[nic]
	delete(p.nics, nic)
	if !has {
		return nil
	}
	return p.whileSyncing(func(ctx context.Context) error { return p.port.DetachNIC(ctx, nic) })
}

// held says whether a ring of a port in that memory has a buffer.
func (d *Device) held(m *memory, buf uint32) bool {
	for _, p := range d.ports {
		for _, r := range p.rings {
			if p.mem == m && r.Holds(buf) {
				return true
			}
		}
	}
	return false
}
