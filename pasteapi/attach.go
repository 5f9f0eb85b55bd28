package pasteapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/pastenet/paste/xsk"
)

var (
	// ErrNICAttached says that the port has the NIC already. It is an fs.ErrExist.
	ErrNICAttached error = &sentinel{"interface is attached to this port", fs.ErrExist}
	// ErrNICNotAttached says that the port does not have the NIC. It is an
	// fs.ErrNotExist.
	ErrNICNotAttached error = &sentinel{"interface is not attached to this port", fs.ErrNotExist}
	// ErrSteersOne says that a port steers one NIC, and has one.
	ErrSteersOne = errors.New("a port steers the frames of one interface")
)

// AttachNIC gives an open port a NIC, as Options.NIC does: connections that are
// registered are received by it from then on, in the same order as ever. Whether its
// frames are steered Options.Receive says. A port may have several NICs, of which
// one can be steered; on the others payload is copied, or read. It waits until each ring
// has taken its part in a Poll or RxSync: so it is called on a goroutine of its own while the
// rings are polled, on a thread in the NIC's network namespace. When ctx ends before that, the
// NIC may be attached or not; DetachNIC or Close makes an end of it.
//
// Errors: ErrNICAttached, ErrNICInUse, ErrSteersOne, ErrFrameSize, ErrClosed, and those of
// packages bpf and xsk.
func (p *Port) AttachNIC(ctx context.Context, nic string) (err error) {
	p.attaching.Lock()
	defer p.attaching.Unlock()
	ctx, cancel := p.bound(ctx)
	defer cancel()
	if err := p.attachNIC(ctx, nic); err != nil {
		return fmt.Errorf("attach %s to the port: %w", nic, err)
	}
	return nil
}

// bound is a context that ends with the port, too.
func (p *Port) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(p.life, cancel)
	return ctx, func() { stop(); cancel() }
}

func (p *Port) attachNIC(ctx context.Context, nic string) (err error) {
	if p.life.Err() != nil {
		return ErrClosed
	}
	if p.has(nic) {
		return ErrNICAttached
	}
	o := p.opts
	o.NIC = nic
	link, err := findNIC(&o)
	if err != nil {
		return err
	}
	c, err := claimNIC(nic, p.Status)
	if err != nil {
		return err
	}
	if !p.has("") {
		if o.steers() {
			return errors.Join(ErrSteersOne, c.Close())
		}
		if zero, err := xsk.ZeroCopyCapable(link.Attrs().Index); err == nil && zero && p.isSteered() {
			p.opts.Logger.Info("the interface has zero-copy, and is not steered, as the port steers another one", "nic", nic)
		}
		p.mu.Lock()
		p.others[nic] = c
		p.mu.Unlock()
		return nil
	}
	p.mu.Lock()
	p.opts.NIC, p.control = nic, c
	p.mu.Unlock()
	steers, err := p.decide(ctx, link)
	if err == nil && steers {
		err = p.steerNIC(ctx)
	}
	if err != nil && ctx.Err() == nil {
		err = errors.Join(err, p.letGo())
	}
	return err
}

// steers says whether options demand that a NIC is steered.
func (o *Options) steers() bool { return o.Receive == ReceiveSteered || o.DurableAck }

func (p *Port) isSteered() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.nic != nil
}

// has says whether the port has a NIC.
func (p *Port) has(nic string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opts.NIC == nic || slices.Contains(p.names(), nic)
}

// steerNIC has the rings take the frames of the port's NIC.
func (p *Port) steerNIC(ctx context.Context) error {
	e, err := openNIC(ctx, &p.opts, true)
	if err != nil {
		return err
	}
	if err := p.give(ctx, e); err != nil {
		return err
	}
	f, err := startFollow(p)
	p.follow = f
	return err
}

// DetachNIC takes a NIC from the port: what has arrived is given out, what is on its way
// comes by copy. Like AttachNIC it waits for the rings. Errors: ErrNICNotAttached,
// ErrClosed.
func (p *Port) DetachNIC(ctx context.Context, nic string) error {
	p.attaching.Lock()
	defer p.attaching.Unlock()
	ctx, cancel := p.bound(ctx)
	defer cancel()
	err := ErrNICNotAttached
	switch {
	case p.life.Err() != nil:
		err = ErrClosed
	case nic == "" || !p.has(nic):
	case p.others[nic] != nil:
		p.mu.Lock()
		c := p.others[nic]
		delete(p.others, nic)
		p.mu.Unlock()
		err = c.Close()
	default:
		err = p.unsteerNIC(ctx)
		if err == nil {
			err = p.letGo()
		}
	}
	if err != nil {
		return fmt.Errorf("detach %s from the port: %w", nic, err)
	}
	return nil
}

// unsteerNIC has the rings give the NIC back.
func (p *Port) unsteerNIC(ctx context.Context) error {
	p.follow.stop()
	p.follow = nil
	if p.nic == nil {
		return nil
	}
	return errors.Join(p.nic.steer.Reset(), p.drop(ctx, p.nic))
}

// letGo gives up the claim on the port's NIC. One of the others, if there is one, is the
// port's NIC from then on; it is not steered.
func (p *Port) letGo() error {
	p.mu.Lock()
	c := p.control
	p.opts.NIC, p.control, p.lost = "", nil, ""
	for _, name := range p.names() {
		p.opts.NIC, p.control = name, p.others[name]
		delete(p.others, name)
		break
	}
	p.mu.Unlock()
	return c.Close()
}
