package pasteapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/pastenet/paste/bpf"
)

// Port is PASTE's end of a NIC: rings over a pool of buffers, fed by the NIC's
// queues through the kernel's TCP. Its methods may be called from any
// goroutine; each Ring belongs to one.
type Port struct {
	opts    Options
	rings   []*Ring
	release func()    // lets go of the pool
	why     string    // the NIC's frames are steered, or not
	follow  *follower // of the NIC; nil if it is not steered
	tracing *tracing
	unnamed *control // nil if it was opened with a NIC

	attaching sync.Mutex // AttachNIC and DetachNIC, one at a time
	life      context.Context
	end       context.CancelFunc // of life

	mu      sync.Mutex
	control *control
	nic     *nicEnd             // nil: there is none, or it is lost
	lost    string              // why the NIC is, "" while it is not
	others  map[string]*control // further NICs, which are not steered
	ports   []uint16
	app     func() App
	opened  bool
	closed  bool
}

// Open opens a port. The NIC is attached for the port's lifetime, unless
// `pastectl attach` did that before; one process at a time can have it
// (ErrNICInUse). It must be called, with NIC set, on a thread that is in the
// NIC's network namespace.
//
// Everything that Open creates disappears with the process, however it ends. A driver
// that receives into the pool by itself may go on with that for a moment after the end
// of a process that was killed; Open waits until it has let go. So write into frames
// of a pool that has had such a life when Open has returned, not before.
func Open(ctx context.Context, o Options) (_ *Port, err error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	p := &Port{opts: o, others: map[string]*control{}}
	p.life, p.end = context.WithCancel(context.Background())
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
	p.tracing = startTracing(o.Logger)
	for i := range o.Rings {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("open port: %w", err)
		}
		r, err := newRing(&p.opts, i, &p.tracing.on)
		if err != nil {
			return nil, fmt.Errorf("open ring %d: %w", i, err)
		}
		p.rings = append(p.rings, r)
	}
	if m := o.Send.means(); m.Missing != nil {
		o.Logger.Info("replies are sent by a system call for each connection", "why", m.Missing)
	}
	if o.NIC != "" {
		if err := p.openNIC(ctx); err != nil {
			return nil, fmt.Errorf("open port on %s: %w", o.NIC, err)
		}
		if err := p.pollNAPI(); err != nil {
			return nil, fmt.Errorf("open port: %w", err)
		}
	}
	p.mu.Lock()
	p.opened = true
	p.mu.Unlock()
	if o.NIC == "" {
		p.answerUnnamed()
	}
	return p, nil
}

// openNIC claims the NIC and makes the way of a packet from it.
func (p *Port) openNIC(ctx context.Context) (err error) {
	// What is wrong with the NIC is told before who has it.
	link, err := findNIC(&p.opts)
	if err != nil {
		return err
	}
	if p.control, err = claimNIC(p.opts.NIC, p.Status); err != nil {
		return err
	}
	if steers, err := p.decide(ctx, link); !steers || err != nil {
		return err
	}
	if p.nic, err = openNIC(ctx, &p.opts, true); err != nil {
		return err
	}
	for i, r := range p.rings {
		if err := p.nic.attach(r, i, len(p.rings)); err != nil {
			return err
		}
	}
	if err := p.nic.start(); err != nil {
		return err
	}
	p.follow, err = startFollow(p)
	return err
}

// Steer brings the segments of a local TCP port through the rings, for
// connections that are registered; others on the port work as ever. Without a
// NIC it has no effect. Steering a port again is no error.
//
// A connection of which the kernel has chosen the local port (net.ipv4.ip_local_port_range),
// as it does for sockets that connect, has it steered by itself while it is registered.
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
	if p.nic != nil {
		if err := p.nic.steer.AddPort(port, p.opts.copybreak(p.nic)); err != nil {
			return err
		}
	}
	p.ports = append(p.ports, port)
	return nil
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
	if p.nic == nil {
		return nil
	}
	return p.nic.steer.RemovePort(port)
}

// Ring returns ring pair i, from 0 to NumRings-1.
func (p *Port) Ring(i int) *Ring { return p.rings[i] }

// NumRings is the number of ring pairs.
func (p *Port) NumRings() int { return len(p.rings) }

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
	p.mu.Unlock()

	p.end()
	p.attaching.Lock() // what has begun gives up
	defer p.attaching.Unlock()
	p.follow.stop()
	for _, r := range p.rings {
		r.interrupt()
	}
	var errs []error
	if p.nic != nil {
		errs = append(errs, p.closeNIC())
	}
	for _, r := range p.rings {
		errs = append(errs, r.close())
	}
	p.tracing.stop()
	if p.release != nil {
		p.release()
	}
	// Last, for whoever waits for the NIC finds it untouched then.
	if p.control != nil {
		errs = append(errs, p.control.Close())
	}
	for _, c := range p.others {
		errs = append(errs, c.Close())
	}
	if p.unnamed != nil {
		errs = append(errs, p.unnamed.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close port: %w", err)
	}
	return nil
}

// closeNIC gives the NIC back, when the rings do nothing any more.
func (p *Port) closeNIC() error {
	errs := []error{p.nic.steer.Reset()}
	for _, r := range p.rings {
		errs = append(errs, r.detach())
	}
	errs = append(errs, p.nic.close())
	p.nic = nil
	return errors.Join(errs...)
}
