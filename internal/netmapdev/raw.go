package netmapdev

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/netmap"
	"github.com/pastenet/paste/netmap/portspec"
	"golang.org/x/sys/unix"
)

// frames is the kind of ports of whole frames: NICs, their hosts' rings, pipes, ports
// of switches.
type frames struct{}

func (frames) memory(d *Device, id uint16) (*memory, error) {
	m, err := d.memory(id, rawMemory, d.newRawMemory)
	if err == nil && m.raw == nil {
		return nil, errors.Join(fmt.Errorf("memory %d is one of ports of connections: %w", id, unix.EINVAL), d.drop(m))
	}
	return m, err
}

func (d *Device) newRawMemory() (*memory, error) {
	o := netmap.MemoryOptions{BufSize: d.opts.FrameSize}
	if d.opts.PoolSize != 0 {
		o.Buffers = int(d.opts.PoolSize) / max(o.BufSize, 2048)
	}
	raw, err := netmap.NewMemory(o)
	if err != nil {
		return nil, err
	}
	return ofRaw(raw), nil
}

func ofRaw(raw *netmap.Memory) *memory {
	return span(&memory{raw: raw, parts: [][]byte{raw.Bytes()}, free: raw.Close})
}

func (frames) lend(region []byte, e *extmem) (*memory, error) {
	rings, err := ringRoom(e, uint64(len(region)))
	if err != nil {
		return nil, err
	}
	raw, err := netmap.MemoryOver(region, netmap.MemoryOptions{BufSize: int(e.info.bufObjSize), RingArea: int(rings)})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, unix.EINVAL)
	}
	return ofRaw(raw), nil
}

func (frames) pools(m *memory, to *poolsInfo) {
	*to = poolsInfo{memSize: m.size, memID: m.id}
	size := uint64(m.raw.BufSize())
	to.bufOffset = m.offset(unsafe.Pointer(&m.raw.Buf(firstBuffer)[0])) - firstBuffer*size
	to.bufTotal, to.bufObjSize = uint32((m.size-to.bufOffset)/size), uint32(size)
	to.ringTotal, to.ringSize = uint32(to.bufOffset/page), page
	to.ifTotal, to.ifSize = to.ringTotal, page
}

// firstBuffer is a buffer that each memory of frames has.
const firstBuffer = 2

// rawSpec is the port that a request is about.
func rawSpec(name string, req *register) (*portspec.Spec, error) {
	if !strings.HasPrefix(name, "vale") {
		name = "netmap:" + name
	}
	s, err := portspec.Parse(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, unix.ENXIO)
	}
	if s.Mode != portspec.AllNIC || s.Flags != 0 || s.MemID != 0 {
		return nil, fmt.Errorf("%q: no interface has such a name: %w", name, unix.ENXIO)
	}
	s.Mode, s.Ring = portspec.Mode(req.mode), int(req.ringID)
	s.Flags = portspec.Flags(req.flags &^ uint64(flagVnetHdr))
	s.Conf = portspec.Conf{TxSlots: int(req.txSlots), RxSlots: int(req.rxSlots)}
	switch s.Mode {
	case portspec.AllNIC, portspec.OneNIC:
	case portspec.Host, portspec.NICAndHost, portspec.OneHost:
		if s.End != 0 || s.Subsystem != portspec.Netmap {
			return nil, fmt.Errorf("%s: it has no host rings: %w", name, unix.EINVAL)
		}
		s.Conf.HostTxRings, s.Conf.HostRxRings = int(req.hostTxRings), int(req.hostRxRings)
	case portspec.Null:
		s.Conf.TxRings, s.Conf.RxRings = int(req.txRings), int(req.rxRings)
	default:
		return nil, fmt.Errorf("mode %d: %w", req.mode, unix.EINVAL)
	}
	return s, nil
}

func (frames) describe(_ *Device, name string, req *register) error {
	s, err := rawSpec(name, req)
	if err != nil {
		return err
	}
	rings, host := 1, 0
	if s.End == 0 && s.Subsystem == portspec.Netmap {
		nic, err := bpf.LookupNIC(s.Name)
		if err != nil {
			return err
		}
		rings, host = nic.Queues, 1
	}
	req.txRings, req.rxRings = uint16(rings), uint16(rings)
	req.hostTxRings, req.hostRxRings = uint16(host), uint16(host)
	for _, slots := range []*uint32{&req.txSlots, &req.rxSlots} {
		if *slots == 0 {
			*slots = 1024
		}
	}
	return nil
}

func (frames) bind(d *Device, name string, req *register, m *memory) (binding, error) {
	s, err := rawSpec(name, req)
	if err != nil {
		return nil, err
	}
	p, err := netmap.OpenSpec(context.Background(), *s, netmap.Options{Memory: m.raw, Logger: d.opts.Logger})
	if err != nil {
		if errnoOf(err) == unix.EIO {
			err = fmt.Errorf("%w: %w", err, unix.EINVAL)
		}
		return nil, err
	}
	b := &rawBinding{port: p, mem: m}
	b.takeExtra(req.extraBufs)
	return b, nil
}

// rawBinding is a port of whole frames, which one file has. It is for one thread at a
// time.
type rawBinding struct {
	mu    sync.Mutex
	port  *netmap.Port
	mem   *memory
	extra uint32 // buffers that the program was given
}

func (b *rawBinding) nif() *netmapIf { return at[netmapIf](b.mem.raw.Bytes()[b.port.IfOffset():]) }

// takeExtra gives the program as many buffers as there are, n at most, chained by the
// number that each begins with.
func (b *rawBinding) takeExtra(n uint32) {
	if n == 0 {
		return
	}
	all := make([]uint32, min(n, uint32(b.mem.size/uint64(b.mem.raw.BufSize()))))
	all = all[:b.mem.raw.Alloc(all)]
	head := uint32(0)
	for _, buf := range all {
		*at[uint32](b.mem.raw.Buf(buf)) = head
		head = buf
	}
	b.nif().bufsHead, b.extra = head, uint32(len(all))
}

// giveExtra takes the chain back, as far as it leads to buffers that the program has.
func (b *rawBinding) giveExtra() {
	buf := b.nif().bufsHead
	for n := b.extra; n > 0; n-- {
		mem := b.mem.raw.Buf(buf)
		if mem == nil {
			return
		}
		next := *at[uint32](mem)
		b.mem.raw.Free([]uint32{buf})
		buf = next
	}
}

func (b *rawBinding) where() *memory { return b.mem }

func (b *rawBinding) fill(req *register) {
	nif := b.nif()
	req.txRings, req.rxRings = uint16(nif.txRings), uint16(nif.rxRings)
	req.hostTxRings, req.hostRxRings = uint16(nif.hostTxRings), uint16(nif.hostRings)
	if b.port.NumTX() > 0 {
		req.txSlots = b.port.TX(0).NumSlots
	}
	if b.port.NumRX() > 0 {
		req.rxSlots = b.port.RX(0).NumSlots
	}
	req.txSlots, req.rxSlots = max(req.txSlots, 1), max(req.rxSlots, 1)
	req.extraBufs, req.offset = b.extra, uint64(b.port.IfOffset())
}

func (b *rawBinding) wakes() []int { return []int{b.port.Fd()} }

func (b *rawBinding) sync(tx bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := error(nil)
	if tx {
		err = b.port.TxSync()
	} else {
		err = b.port.RxSync()
	}
	if errors.Is(err, netmap.ErrFrame) {
		return nil // it is counted, and of no other frame's business
	}
	return err
}

// Nobody tells when frames that wait in the kernel have left.
const (
	roomStep = 100 * time.Microsecond // for who waits for room
	sendStep = time.Millisecond       // for who does not
)

func (b *rawBinding) poll(events int16) (found int16, soon time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	asked := netmap.Events(0)
	if events&wantRX != 0 {
		asked |= netmap.In
	}
	if events&wantTX != 0 {
		asked |= netmap.Out
	}
	got, err := b.port.Poll(asked, 0)
	if err != nil && !errors.Is(err, netmap.ErrFrame) {
		found |= unix.POLLERR
	}
	if got&netmap.In != 0 {
		found |= events & wantRX
	}
	if got&netmap.Out != 0 {
		found |= events & wantTX
	}
	switch {
	case found != 0:
	case events&wantTX != 0:
		soon = roomStep
	case b.pending():
		soon = sendStep
	}
	return found, soon
}

// pending says whether frames have not left yet.
func (b *rawBinding) pending() bool {
	for i := range b.port.NumTX() {
		if n := b.port.TX(i); n.Next(n.Tail) != n.Head {
			return true
		}
	}
	return false
}

func (b *rawBinding) release() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.giveExtra()
	return b.port.Close()
}
