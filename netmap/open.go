package netmap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/netmap/portspec"
)

// Open opens a port by its name, see package portspec: "netmap:eth0", "netmap:eth0^",
// "netmap:p{1", "vale0:a". A NIC is looked up in the calling thread's network
// namespace. For pst: names see package pasteapi.
//
// Errors: *portspec.Error, ErrBusy, ErrNoMemory, those of packages bpf and xsk, and
// errors.ErrUnsupported for what is understood and not here.
func Open(ctx context.Context, name string, o Options) (*Port, error) {
	spec, err := portspec.Parse(name)
	if err != nil {
		return nil, err
	}
	return OpenSpec(ctx, *spec, o)
}

// OpenSpec is Open for a name that is taken apart already.
func OpenSpec(ctx context.Context, spec portspec.Spec, o Options) (_ *Port, err error) {
	p := &Port{spec: spec, opts: o}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open %s: %w", spec.String(), err)
			err = errors.Join(err, p.Close())
		}
	}()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	oo, err := p.opts.with(&p.spec)
	if err != nil {
		return nil, err
	}
	if err := p.findMemory(); err != nil {
		return nil, err
	}
	have, err := p.openRings(oo)
	if err != nil {
		return nil, err
	}
	if err := p.openWait(); err != nil {
		return nil, err
	}
	if err := p.layIf(have); err != nil {
		return nil, err
	}
	if err := p.chainExtra(o.ExtraBufs); err != nil {
		return nil, err
	}
	ports.add(p)
	p.atEnd(func() error { ports.remove(p); return nil })
	return p, p.start()
}

// numbers are how many rings a port has in all, of each kind.
type numbers struct{ tx, rx, host int }

// openRings makes the rings that the name means.
func (p *Port) openRings(o *openOptions) (numbers, error) {
	s := o.spec
	switch {
	case s.Subsystem == portspec.Pst:
		return numbers{}, errors.New("a port of connections is opened by pasteapi.Open")
	case s.Subsystem == portspec.Vale:
		return numbers{1, 1, 0}, p.openVale(o)
	case s.End != 0:
		return numbers{1, 1, 0}, p.openPipe(o)
	case s.Mode == portspec.Null:
		return p.openNull(o, numbers{tx: s.Conf.TxRings, rx: s.Conf.RxRings})
	}
	rings, err := p.openNIC(o)
	if errors.Is(err, bpf.ErrNoSuchNIC) && strings.HasPrefix(s.Name, "dummy") {
		return p.openNull(o, numbers{tx: max(s.Conf.TxRings, 1), rx: max(s.Conf.RxRings, 1)})
	}
	return numbers{rings, rings, 1}, err
}

// openNIC opens rings of a NIC and of its host side.
func (p *Port) openNIC(o *openOptions) (rings int, err error) {
	devices.Lock()
	defer devices.Unlock()
	d, err := openDevice(p.spec.Name, o.xdp)
	if err != nil {
		return 0, err
	}
	p.dev = d
	p.atEnd(locked(d.close))
	rings = d.nic.Queues
	for _, want := range []int{p.spec.Conf.RxRings, p.spec.Conf.TxRings} {
		if want != 0 && want != rings {
			return 0, fmt.Errorf("%d rings: %s has %d queues, and a ring for each; `ethtool -L %s combined %d` changes that, or open one queue (-N)", want, d.nic.Name, rings, d.nic.Name, want)
		}
	}
	if p.spec.Conf.HostRxRings > 1 || p.spec.Conf.HostTxRings > 1 || p.spec.Mode == portspec.OneHost && p.spec.Ring > 0 {
		return 0, fmt.Errorf("there is one pair of the host's rings, number 0: %w", errors.ErrUnsupported)
	}
	first, end := 0, rings
	switch p.spec.Mode {
	case portspec.OneNIC:
		if p.spec.Ring >= rings {
			return 0, fmt.Errorf("ring %d: %s has %d, from 0 on", p.spec.Ring, d.nic.Name, rings)
		}
		first, end = p.spec.Ring, p.spec.Ring+1
	case portspec.Host, portspec.OneHost:
		end = 0
	}
	for q := first; q < end; q++ {
		if err := p.openQueue(d, q, o); err != nil {
			return 0, err
		}
	}
	switch p.spec.Mode {
	case portspec.Host, portspec.OneHost, portspec.NICAndHost:
		return rings, p.openHost(d, o)
	}
	return rings, nil
}

// locked is close with devices' lock, for Close.
func locked(close func() error) func() error {
	return func() error {
		devices.Lock()
		defer devices.Unlock()
		return close()
	}
}

func (p *Port) openQueue(d *device, id int, o *openOptions) error {
	q, err := d.claim(id, p.mem, o, o.rx, o.tx)
	if err != nil {
		return err
	}
	p.atEnd(locked(func() error { return q.release(o.rx, o.tx) }))
	if room := d.nic.MTU + 18; room > p.mem.MaxFrame() && !q.sock.MultiBuffer() {
		return fmt.Errorf("mtu %d of %s is more than %d, the most for buffers of %d bytes, and its driver takes no frames of several buffers in zero-copy mode (`ip link set %s mtu %d`, 4096-byte buffers, or copy mode)",
			d.nic.MTU, d.nic.Name, p.mem.MaxFrame()-18, p.mem.BufSize(), d.nic.Name, p.mem.MaxFrame()-18)
	}
	if o.rx {
		r, err := p.newRing(dirRX, id, o.rxSlots, q.owner)
		if err != nil {
			return err
		}
		rx := &rxQueue{queue: q, descs: newDescs(o.rxSlots)}
		p.rx = append(p.rx, rxRing{r, rx})
	}
	if o.tx {
		r, err := p.newRing(dirTX, id, o.txSlots, q.owner)
		if err != nil {
			return err
		}
		p.tx = append(p.tx, txRing{r, newTxQueue(q, o.txSlots)})
	}
	return nil
}

// newRing makes a ring that goes with the port.
func (p *Port) newRing(dir, id, slots int, owner uint32) (*ring, error) {
	r, err := newRing(p.mem, dir, id, slots, owner)
	if err == nil {
		p.atEnd(func() error { r.close(); return nil })
	}
	return r, err
}

// openHost opens the host's rings.
func (p *Port) openHost(d *device, o *openOptions) error {
	if d.host != nil {
		return fmt.Errorf("the host's rings of %s: %w by another port of this process", d.nic.Name, ErrBusy)
	}
	if d.mode == bpf.ModeGeneric {
		return d.noHostInGeneric()
	}
	h, err := openHost(d.nic)
	if err != nil {
		return err
	}
	d.host = h
	p.atEnd(locked(func() error { d.host = nil; return h.close() }))
	id := d.nic.Queues
	if o.rx {
		owner := p.mem.newOwner()
		r, err := p.newRing(dirRX, id, o.rxSlots, owner)
		if err != nil {
			return err
		}
		from, err := newHostRx(h, p.mem, owner, o.rxSlots, d.nic.MTU)
		if err != nil {
			return err
		}
		p.rx = append(p.rx, rxRing{r, from})
	}
	if o.tx {
		r, err := p.newRing(dirTX, id, o.txSlots, p.mem.newOwner())
		if err != nil {
			return err
		}
		p.tx = append(p.tx, txRing{r, &hostTx{host: h, mem: p.mem}})
	}
	return nil
}

// start has frames come, once everything is there to receive them.
func (p *Port) start() error {
	devices.Lock()
	defer devices.Unlock()
	for _, r := range p.rx {
		if q, ok := r.from.(*rxQueue); ok {
			if err := q.receive(len(r.slots)); err != nil {
				return err
			}
		}
	}
	if p.dev == nil || p.dev.raw == nil {
		return nil
	}
	mode, fallback := p.dev.raw.Mode()
	if mode == bpf.ModeGeneric && p.dev.host != nil {
		return p.dev.noHostInGeneric()
	}
	if fallback != "" {
		p.opts.Logger.Warn("the XDP program runs in generic mode, which is slower", "port", p.spec.String(), "cause", fallback)
	}
	return nil
}

func (d *device) noHostInGeneric() error {
	return fmt.Errorf("the host's rings of %s: in generic mode the XDP program would take away again what comes in from them; they need native XDP: %w", d.nic.Name, errors.ErrUnsupported)
}

func (p *Port) openPipe(o *openOptions) error {
	end, name := 0, p.spec.Name+"{"+p.spec.Pipe
	if p.spec.End == portspec.Slave {
		end = 1
	}
	pp, err := openPipe(name, end, p.mem, max(o.rxSlots, o.txSlots))
	if err != nil {
		return err
	}
	p.atEnd(func() error { pp.close(end); return nil })
	if o.rx {
		r, err := p.newRing(dirRX, 0, o.rxSlots, p.mem.newOwner())
		if err != nil {
			return err
		}
		p.rx = append(p.rx, rxRing{r, &pipeRx{direction: pp.dirs[1-end]}})
	}
	if o.tx {
		r, err := p.newRing(dirTX, 0, o.txSlots, p.mem.newOwner())
		if err != nil {
			return err
		}
		p.tx = append(p.tx, txRing{r, &pipeTx{direction: pp.dirs[end]}})
	}
	return nil
}

func (p *Port) openNull(o *openOptions, n numbers) (numbers, error) {
	owner := p.mem.newOwner()
	p.atEnd(func() error { p.mem.giveAll(owner); return nil })
	for i := range n.rx {
		if o.rx {
			r, err := p.newRing(dirRX, i, o.rxSlots, owner)
			if err != nil {
				return n, err
			}
			p.rx = append(p.rx, rxRing{r, nullRx{}})
		}
	}
	for i := range n.tx {
		if o.tx {
			r, err := p.newRing(dirTX, i, o.txSlots, owner)
			if err != nil {
				return n, err
			}
			p.tx = append(p.tx, txRing{r, &nullSide{}})
		}
	}
	return n, nil
}

// registry is the ports of this process that are open.
type registry struct {
	sync.Mutex
	list []*Port
}

var ports registry

func (g *registry) add(p *Port) {
	g.Lock()
	defer g.Unlock()
	g.list = append(g.list, p)
}

func (g *registry) remove(p *Port) {
	g.Lock()
	defer g.Unlock()
	for i, have := range g.list {
		if have == p {
			g.list = append(g.list[:i], g.list[i+1:]...)
			return
		}
	}
}
