package pasteapi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/pastenet/paste/bpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// followEvery is how often a port looks after its NIC.
const followEvery = time.Second

// follower looks after a port's NIC, on a goroutine in the NIC's network namespace.
// An interface is renamed, deleted and made again, gets another address, VLAN
// devices or queues, and its program is taken away. The port goes on by copy
// meanwhile, and takes the NIC back when it can.
type follower struct {
	port     *Port
	cancel   context.CancelFunc
	done     chan struct{} // closed at the end
	events   <-chan netlink.LinkUpdate
	quit     chan struct{} // ends events
	dirty    bool          // some link has changed
	detached bool          // by another: nothing is attached before somebody does that
	refused  string        // why the NIC could not be taken back, as the log has it
}

// startFollow is called in the NIC's network namespace.
func startFollow(p *Port) (*follower, error) {
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("follow the interface: %w", err)
	}
	events := make(chan netlink.LinkUpdate, 64)
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{port: p, cancel: cancel, done: make(chan struct{}), events: events, quit: make(chan struct{})}
	// What the subscription misses, in a burst of events, the next look finds.
	err = netlink.LinkSubscribeWithOptions(events, f.quit, netlink.LinkSubscribeOptions{ErrorCallback: func(error) {}})
	if err != nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("follow the interface: %w", err), ns.Close())
	}
	go f.run(ctx, ns)
	return f, nil
}

// stop ends the follower. What it was doing is left as it is.
func (f *follower) stop() {
	if f == nil {
		return
	}
	f.cancel()
	<-f.done
}

func (f *follower) run(ctx context.Context, ns *os.File) {
	defer close(f.done)
	defer func() {
		close(f.quit)
		for range f.events { // until the subscription has ended
		}
	}()
	err := enter(ns)
	if err != nil {
		f.port.opts.Logger.Warn("the interface is not followed: what happens to it ends the steering for good",
			"nic", f.port.opts.NIC, "cause", err)
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for events := f.events; ; {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-events:
			if !ok {
				events = nil // looking at everything now and then has to do
			}
			f.dirty = true
		case <-tick.C:
			f.look(ctx)
			f.dirty = events == nil
		}
	}
}

// enter moves this goroutine to a network namespace, for good: its thread ends with
// it.
func enter(ns *os.File) error {
	runtime.LockOSThread()
	defer ns.Close()
	mine, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	theirs, err := ns.Stat()
	if err != nil || os.SameFile(mine, theirs) {
		return err
	}
	return os.NewSyscallError("setns", unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET))
}

// look looks after the NIC once.
func (f *follower) look(ctx context.Context) {
	p := f.port
	if p.nic == nil {
		f.retake(ctx)
		return
	}
	cause := f.trouble(p.nic)
	if cause == "" {
		return
	}
	p.opts.Logger.Warn("the interface is lost, payload is copied until it is back", "nic", p.opts.NIC, "cause", cause)
	if p.drop(ctx, p.nic) == nil {
		p.setNIC(nil, cause)
		f.refused = ""
	}
}

// trouble says why the NIC has to be given up, and sees to what is no reason.
func (f *follower) trouble(e *nicEnd) string {
	p := f.port
	link, err := netlink.LinkByIndex(e.ifindex)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return "the interface is gone"
	}
	if err != nil {
		return "" // another look will tell
	}
	if name := link.Attrs().Name; name != p.opts.NIC {
		p.rename(name)
	}
	switch err := e.steer.Holds(); {
	case errors.Is(err, bpf.ErrNotAttached):
		f.detached = true
		return "the steering program was detached"
	case err != nil:
		// Of a link that an operator has pinned, his next act is waited for.
		f.detached = e.steer.Info().Pinned
		return err.Error()
	}
	if n, err := bpf.Queues(p.opts.NIC); err == nil && n != len(e.socks) {
		return fmt.Sprintf("it has %d queues now, and had %d", n, len(e.socks))
	}
	if f.dirty || e.steer.HasVLANs() { // addresses come and go without an event here
		err := e.steer.Configure(bpf.FrameRoom(p.opts.Pool.FrameSize()), p.opts.Rings)
		if e.ingress != nil {
			err = errors.Join(err, e.ingress.Follow(e.ifindex))
		}
		if err != nil && !errors.Is(err, bpf.ErrNoSuchNIC) {
			p.opts.Logger.Warn("the interface has changed, and steering cannot follow", "nic", p.opts.NIC, "cause", err)
		}
	}
	return ""
}

// drop takes the NIC from the rings and closes it. With an error it stays theirs.
func (p *Port) drop(ctx context.Context, e *nicEnd) error {
	rings := p.rings
	for _, r := range rings {
		if err := r.run(ctx, r.detach); err != nil {
			return err
		}
	}
	p.mu.Lock()
	if p.nic == e {
		p.nic = nil
	}
	err := e.close()
	p.mu.Unlock()
	if err != nil {
		// Of an interface that is gone.
		p.opts.Logger.Debug("close the interface's sockets", "nic", p.opts.NIC, "cause", err)
	}
	for _, r := range rings {
		// When the port is closed first, the frames go back with all others.
		_ = r.run(ctx, func() error { r.in.Recall(); return nil })
	}
	return nil
}

// retake takes the NIC back if there is one again.
func (f *follower) retake(ctx context.Context) {
	p := f.port
	e, err := openNIC(ctx, &p.opts, !f.detached)
	if err == nil {
		err = p.give(ctx, e)
	}
	switch {
	case err == nil:
		f.detached = false
		p.opts.Logger.Info("the interface is back", "nic", p.opts.NIC)
	case ctx.Err() != nil, errors.Is(err, bpf.ErrNoSuchNIC), f.detached && errors.Is(err, bpf.ErrNotAttached):
	case err.Error() != f.refused:
		f.refused = err.Error()
		p.opts.Logger.Warn("the interface cannot be taken back yet", "nic", p.opts.NIC, "cause", err)
	}
}

// give attaches the NIC to the rings. It is the port's from then on, or closed.
func (p *Port) give(ctx context.Context, e *nicEnd) error {
	var err error
	for i, r := range p.rings {
		err = r.run(ctx, func() error { return e.attach(r, i, len(p.rings)) })
		if ctx.Err() != nil {
			// Whether the ring has begun to use it nobody knows: Close does.
			p.setNIC(e, "")
			return err
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		err = p.setNIC(e, "")
	}
	if err == nil {
		return e.start()
	}
	if p.drop(ctx, e) != nil {
		p.setNIC(e, "")
	}
	return err
}

// setNIC makes e the port's NIC, or says why there is none.
func (p *Port) setNIC(e *nicEnd, lost string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nic, p.lost = e, lost
	if e == nil {
		return nil
	}
	for _, port := range p.ports {
		if err := e.steer.AddPort(port, p.opts.copybreak(e)); err != nil {
			return err
		}
	}
	return nil
}

// rename follows the NIC to another name, under which it is claimed from then on.
func (p *Port) rename(name string) {
	c, err := claimNIC(name, p.Status)
	if err != nil {
		p.opts.Logger.Warn("the interface was renamed, and its new name is taken", "nic", p.opts.NIC, "name", name, "cause", err)
	} else {
		p.opts.Logger.Info("the interface was renamed", "nic", p.opts.NIC, "name", name)
	}
	p.mu.Lock()
	p.opts.NIC = name
	old := p.control
	if err == nil {
		p.control = c
	}
	p.mu.Unlock()
	if err == nil {
		_ = old.Close()
	}
}
