package pasteapi

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pasteapi/internal/inject"
	"github.com/pastenet/paste/xsk"
	"github.com/vishvananda/netlink"
)

// nicEnd is the way of a packet between a NIC and the rings: steering, AF_XDP
// sockets, injection. It is for one life of the interface, and its queues.
type nicEnd struct {
	ifindex int
	veth    bool // its frames may have partial checksums
	steer   *bpf.Steer
	order   *bpf.Order
	umem    *xsk.Umem
	socks   []*xsk.Socket // by queue
	taps    []*inject.Tap // by ring
	ingress *bpf.Ingress  // nil: what is injected comes in on the TAPs
}

// findNIC looks the NIC up.
func findNIC(o *Options) (netlink.Link, error) {
	nic, err := netlink.LinkByName(o.NIC)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, fmt.Errorf("%s: %w in this network namespace; `ip link` lists those there are", o.NIC, bpf.ErrNoSuchNIC)
	}
	if err != nil {
		return nil, fmt.Errorf("look up interface: %w", err)
	}
	return nic, nil
}

// fits checks that a NIC's frames fit the pool's.
func fits(o *Options, nic netlink.Link) error {
	if limit := bpf.MaxMTU(o.Pool.FrameSize()); nic.Attrs().MTU > limit {
		return fmt.Errorf("mtu %d of %s is more than %d, the most for frames of %d bytes (make the pool with larger frames, or `ip link set %s mtu %d`): %w",
			nic.Attrs().MTU, o.NIC, limit, o.Pool.FrameSize(), o.NIC, limit, ErrFrameSize)
	}
	return nil
}

// openNIC binds the NIC's queues to the pool's memory and makes the injection
// devices. attach says whether the steering program may be attached; otherwise it
// must be pinned. Nothing is steered before start.
func openNIC(ctx context.Context, o *Options, attach bool) (_ *nicEnd, err error) {
	nic, err := findNIC(o)
	if err != nil {
		return nil, err
	}
	if err := fits(o, nic); err != nil {
		return nil, err
	}
	e := &nicEnd{ifindex: nic.Attrs().Index, veth: nic.Type() == "veth"}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	if err := e.openSteer(ctx, o, attach); err != nil {
		return nil, err
	}
	e.umem, err = xsk.NewUmem(o.Pool.Mem(), xsk.UmemConfig{FrameSize: o.Pool.FrameSize()})
	if err != nil {
		return nil, err
	}
	queues := e.steer.Info().Queues
	fill, err := fillSize(o, queues)
	if err != nil {
		return nil, err
	}
	for q := range queues {
		s, err := xsk.Open(e.umem, xsk.Options{
			Ifindex: e.ifindex, Queue: q, Mode: o.BindMode, NeedWakeup: true,
			RxSize: fill, FillSize: fill,
		})
		if err != nil {
			return nil, err
		}
		e.socks = append(e.socks, s)
	}
	first, last, err := clientPorts()
	if err != nil {
		return nil, err
	}
	e.steer.SteerClients(first, last, o.copybreak(e))
	for range o.Rings {
		t, err := inject.OpenTap()
		if err != nil {
			return nil, err
		}
		e.taps = append(e.taps, t)
	}
	if e.ingress, err = bpf.AttachIngress(e.ifindex); err != nil {
		o.Logger.Warn("received payload comes in on an interface pst*, not on the NIC: firewall rules, packet capture and reverse-path filters see it there; sockets bound to the NIC and link-local peers are received by copy",
			"nic", o.NIC, "cause", err)
	}
	return e, nil
}

// openSteer finds the pinned steering program or attaches one, and makes it this
// port's.
func (e *nicEnd) openSteer(ctx context.Context, o *Options, attach bool) (err error) {
	e.steer, err = bpf.OpenSteer(ctx, o.BPFFS, o.NIC)
	if attach && errors.Is(err, bpf.ErrNotAttached) {
		e.steer, err = bpf.AttachSteer(ctx, bpf.SteerOptions{NIC: o.NIC, Mode: o.XDPMode})
	}
	if err != nil {
		return err
	}
	// What an earlier application left that was killed.
	if err := e.steer.Reset(); err != nil {
		return err
	}
	if err := e.steer.Configure(bpf.FrameRoom(o.Pool.FrameSize()), o.Rings); err != nil {
		return err
	}
	e.order, err = e.steer.Order()
	return err
}

// attach gives a ring its NIC queues, and the device through which their frames
// enter the kernel's TCP. It is called on the ring's goroutine, and not before all
// queues are bound: then the driver has let go of the memory for which a process
// that was killed had bound them, and writes into no frame that is posted now.
func (e *nicEnd) attach(r *Ring, ring, rings int) error {
	var nics []*xsk.Socket
	for q := ring; q < len(e.socks); q += rings {
		nics = append(nics, e.socks[q])
	}
	on := 0
	if e.ingress != nil {
		on = e.ifindex
	}
	r.tk.InjectOn(on)
	return r.attach(nics, e.steer, e.order, e.taps[ring], on != 0, e.veth)
}

// clientPorts are the ports that the kernel gives to sockets which connect, in this
// thread's network namespace (Documentation/networking/ip-sysctl.rst).
func clientPorts() (first, last uint16, err error) {
	const path = "/proc/sys/net/ipv4/ip_local_port_range"
	text, err := os.ReadFile(path)
	if err == nil {
		_, err = fmt.Sscan(string(text), &first, &last)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read %s: %w", path, err)
	}
	return first, last, nil
}

// start has the NIC's frames go to the sockets, once all rings are attached.
func (e *nicEnd) start() error {
	for q, s := range e.socks {
		if err := e.steer.SetSocket(q, s.Fd()); err != nil {
			return err
		}
	}
	return nil
}

// zeroCopy says whether the driver receives into the pool by itself.
func (e *nicEnd) zeroCopy() bool {
	for _, s := range e.socks {
		if s.ZeroCopy() {
			return true
		}
	}
	return false
}

// copybreak is the one in effect on a NIC.
func (o *Options) copybreak(nic *nicEnd) int {
	switch {
	case o.DurableAck || o.Copybreak < 0:
		return 0
	case o.Copybreak > 0:
		return o.Copybreak
	case nic.zeroCopy():
		return copybreakZeroCopy
	}
	return copybreakCopy
}

// close gives everything back. The rings must have been detached.
func (e *nicEnd) close() error {
	var errs []error
	for _, s := range e.socks {
		errs = append(errs, s.Close())
	}
	if e.umem != nil {
		errs = append(errs, e.umem.Close())
	}
	for _, t := range e.taps {
		errs = append(errs, t.Close())
	}
	if e.ingress != nil {
		errs = append(errs, e.ingress.Close())
	}
	if e.steer != nil {
		errs = append(errs, e.steer.Close())
	}
	*e = nicEnd{ifindex: e.ifindex}
	return errors.Join(errs...)
}
