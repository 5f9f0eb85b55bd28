package pasteapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pasteapi/internal/inject"
	"github.com/pastenet/paste/pasteapi/internal/receive"
	"github.com/pastenet/paste/xsk"
	"github.com/vishvananda/netlink"
)

// Port is PASTE's end of a NIC: rings over a pool of buffers, fed by the NIC's
// queues through the kernel's TCP. Its methods may be called from any
// goroutine; each Ring belongs to one.
type Port struct {
	opts    Options
	rings   []*Ring
	control *control
	steer   *bpf.Steer
	order   *bpf.Order
	umem    *xsk.Umem
	socks   []*xsk.Socket // on the NIC, by queue
	release func()        // lets go of the pool
	taps    []*inject.Tap // one a ring
	ingress *bpf.Ingress  // nil: what is injected comes in on the TAPs

	mu     sync.Mutex
	ports  []uint16
	opened bool
	closed bool
}

// Open opens a port. The NIC is attached for the port's lifetime, unless
// `pastectl attach` did that before; one process at a time can have it
// (ErrNICInUse). It must be called, with NIC set, on a thread that is in the
// NIC's network namespace.
//
// Everything that Open creates disappears with the process, however it ends.
func Open(ctx context.Context, o Options) (_ *Port, err error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	p := &Port{opts: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	by := "a port without a NIC"
	if o.NIC != "" {
		by = "the port on " + o.NIC
	}
	if p.release, err = o.Pool.Hold(by); err != nil {
		return nil, fmt.Errorf("open port: %w", err)
	}
	if err := bpf.CheckPrivilege(); err != nil {
		return nil, err
	}
	if err := bpf.CheckKernel(); err != nil {
		return nil, err
	}
	for i := range o.Rings {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("open port: %w", err)
		}
		r, err := newRing(&p.opts, i)
		if err != nil {
			return nil, fmt.Errorf("open ring %d: %w", i, err)
		}
		p.rings = append(p.rings, r)
	}
	if o.NIC != "" {
		if err := p.openNIC(ctx); err != nil {
			return nil, fmt.Errorf("open port on %s: %w", o.NIC, err)
		}
	}
	p.mu.Lock()
	p.opened = true
	p.mu.Unlock()
	return p, nil
}

// openNIC makes the way of a packet: NIC, AF_XDP, injection.
func (p *Port) openNIC(ctx context.Context) error {
	o := &p.opts
	nic, err := netlink.LinkByName(o.NIC)
	if err != nil {
		var gone netlink.LinkNotFoundError
		if errors.As(err, &gone) {
			return fmt.Errorf("%s: %w in this network namespace; `ip link` lists those there are", o.NIC, bpf.ErrNoSuchNIC)
		}
		return fmt.Errorf("look up interface: %w", err)
	}
	if limit := bpf.MaxMTU(o.Pool.FrameSize()); nic.Attrs().MTU > limit {
		return fmt.Errorf("mtu %d of %s is more than %d, the most for frames of %d bytes (make the pool with larger frames, or `ip link set %s mtu %d`): %w",
			nic.Attrs().MTU, o.NIC, limit, o.Pool.FrameSize(), o.NIC, limit, ErrFrameSize)
	}
	if p.control, err = claimNIC(o.NIC, p.Status); err != nil {
		return err
	}
	if err := p.openSteer(ctx); err != nil {
		return err
	}
	return p.openSockets(nic.Attrs().Index, nic.Type() == "veth")
}

// openSteer finds the pinned steering program or attaches one.
func (p *Port) openSteer(ctx context.Context) (err error) {
	p.steer, err = bpf.OpenSteer(ctx, p.opts.BPFFS, p.opts.NIC)
	if errors.Is(err, bpf.ErrNotAttached) {
		p.steer, err = bpf.AttachSteer(ctx, bpf.SteerOptions{NIC: p.opts.NIC, Mode: p.opts.XDPMode})
	}
	if err != nil {
		return err
	}
	// What an earlier application left that was killed.
	if err := p.steer.Reset(); err != nil {
		return err
	}
	if err := p.steer.Configure(bpf.FrameRoom(p.opts.Pool.FrameSize())); err != nil {
		return err
	}
	p.order, err = p.steer.Order()
	return err
}

// openSockets binds the NIC's queues to the pool's memory and makes the
// injection devices. On a veth frames may have partial checksums.
func (p *Port) openSockets(ifindex int, veth bool) (err error) {
	o := &p.opts
	p.umem, err = xsk.NewUmem(o.Pool.Mem(), xsk.UmemConfig{FrameSize: o.Pool.FrameSize()})
	if err != nil {
		return err
	}
	queues := p.steer.Info().Queues
	nics := make([][]*xsk.Socket, len(p.rings))
	for q := range queues {
		s, err := xsk.Open(p.umem, xsk.Options{
			Ifindex: ifindex, Queue: q, Mode: o.BindMode, NeedWakeup: true,
			RxSize: receive.FillSize, FillSize: receive.FillSize,
		})
		if err != nil {
			return err
		}
		p.socks = append(p.socks, s)
		nics[q%o.Rings] = append(nics[q%o.Rings], s)
	}
	if p.ingress, err = bpf.AttachIngress(ifindex); err != nil {
		o.Logger.Warn("received payload comes in on an interface pst*, not on the NIC: firewall rules, packet capture and reverse-path filters see it there; sockets bound to the NIC and link-local peers are received by copy",
			"nic", o.NIC, "cause", err)
	}
	// Not before all queues are bound: then the driver has let go of the memory for
	// which a process that was killed had bound them, and writes into no frame that
	// is posted here.
	for i, r := range p.rings {
		if err := p.attachRing(r, nics[i], ifindex, veth); err != nil {
			return err
		}
	}
	for q := range queues {
		if err := p.steer.SetSocket(q, p.socks[q].Fd()); err != nil {
			return err
		}
	}
	return nil
}

// attachRing gives a ring its NIC queues, and the device through which their frames
// enter the kernel's TCP.
func (p *Port) attachRing(r *Ring, nics []*xsk.Socket, ifindex int, veth bool) error {
	t, err := inject.OpenTap()
	if err != nil {
		return err
	}
	p.taps = append(p.taps, t)
	if p.ingress != nil {
		r.tk.InjectOn(ifindex)
	}
	return r.attach(nics, p.steer, p.order, t, p.ingress != nil, veth)
}

// Steer brings the segments of a local TCP port through the rings, for
// connections that are registered; others on the port work as ever. Without a
// NIC it has no effect. Steering a port again is no error.
func (p *Port) Steer(port uint16) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if port == 0 {
		return errors.New("steer port 0: a TCP port is 1 to 65535")
	}
	if slices.Contains(p.ports, port) {
		return nil
	}
	if p.steer != nil {
		if err := p.steer.AddPort(port, p.copybreak()); err != nil {
			return err
		}
	}
	p.ports = append(p.ports, port)
	return nil
}

// copybreak is the one in effect.
func (p *Port) copybreak() int {
	switch {
	case p.opts.DurableAck || p.opts.Copybreak < 0:
		return 0
	case p.opts.Copybreak > 0:
		return p.opts.Copybreak
	}
	for _, s := range p.socks {
		if s.ZeroCopy() {
			return copybreakZeroCopy
		}
	}
	return copybreakCopy
}

// Unsteer ends Steer. Connections stay registered, and are copied.
func (p *Port) Unsteer(port uint16) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	rest := p.ports[:0]
	for _, have := range p.ports {
		if have != port {
			rest = append(rest, have)
		}
	}
	p.ports = rest
	if p.steer == nil {
		return nil
	}
	return p.steer.RemovePort(port)
}

// Ring returns ring pair i, from 0 to NumRings-1.
func (p *Port) Ring(i int) *Ring { return p.rings[i] }

// NumRings is the number of ring pairs.
func (p *Port) NumRings() int { return len(p.rings) }

func (p *Port) closeSockets() error {
	var errs []error
	for _, s := range p.socks {
		errs = append(errs, s.Close())
	}
	p.socks = nil
	for _, r := range p.rings {
		errs = append(errs, r.detach())
	}
	if p.umem != nil {
		errs = append(errs, p.umem.Close())
		p.umem = nil
	}
	return errors.Join(errs...)
}

// Close ends the port: the NIC's traffic goes to the kernel again, registered
// sockets are ordinary sockets again, and the buffers that circulated go back
// to the pool. A Poll that waits in another goroutine ends with ErrClosed. The
// memory of the rings is gone afterwards: nobody may be reading or writing slots
// at the time. It may be called twice.
func (p *Port) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	ports := p.ports
	p.mu.Unlock()

	for _, r := range p.rings {
		r.interrupt()
	}
	var errs []error
	if p.steer != nil {
		for _, port := range ports {
			errs = append(errs, p.steer.RemovePort(port))
		}
	}
	errs = append(errs, p.closeSockets())
	for _, r := range p.rings {
		errs = append(errs, r.close())
	}
	for _, t := range p.taps {
		errs = append(errs, t.Close())
	}
	p.taps = nil
	if p.ingress != nil {
		errs = append(errs, p.ingress.Close())
	}
	if p.steer != nil {
		errs = append(errs, p.steer.Close())
	}
	if p.release != nil {
		p.release()
	}
	// Last, for whoever waits for the NIC finds it untouched then.
	if p.control != nil {
		errs = append(errs, p.control.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close port: %w", err)
	}
	return nil
}
