package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// InjectedMAC begins the source MAC address of an injected frame; the claim
// ticket follows, in the machine's byte order.
var InjectedMAC = [2]byte{byte(steerInjectedMacINJECTED_MAC0), byte(steerInjectedMacINJECTED_MAC1)}

// Ingress is the program at the ingress of a NIC, and of the VLAN devices on it,
// that finds the claim tickets of injected packets again (see Ticket.InjectOn).
// It is stateless, so one serves all rings. It is used by one goroutine at a time.
type Ingress struct {
	objs  ingressObjects
	links map[int]link.Link // by interface index
}

// AttachIngress puts the program on an interface of the calling thread's network
// namespace and on the VLAN devices on it, until Close.
func AttachIngress(ifindex int) (_ *Ingress, err error) {
	g := &Ingress{links: map[int]link.Link{}}
	if err := loadIngressObjects(&g.objs, nil); err != nil {
		return nil, fmt.Errorf("load ingress program: %w", err)
	}
	if err := g.Follow(ifindex); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// Follow moves the program to where it belongs now: ifindex and the VLAN devices
// that are on it.
func (g *Ingress) Follow(ifindex int) error {
	vlans, err := vlansOn(ifindex)
	if err != nil {
		return fmt.Errorf("list VLAN devices on interface %d: %w", ifindex, err)
	}
	want := map[int]bool{ifindex: true}
	for _, v := range vlans {
		want[v.Index] = true
	}
	var errs []error
	for index, l := range g.links {
		// A link outlives its interface, whose index may come again.
		if info, err := l.Info(); want[index] && err == nil && info.TCX() != nil && int(info.TCX().Ifindex) == index {
			delete(want, index)
			continue
		}
		errs = append(errs, l.Close())
		delete(g.links, index)
	}
	for index := range want {
		// First, because another program may end the look at a packet.
		l, err := link.AttachTCX(link.TCXOptions{
			Interface: index, Program: g.objs.PasteIngress, Attach: ebpf.AttachTCXIngress, Anchor: link.Head(),
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("attach to the ingress of interface %d: %w", index, err))
			continue
		}
		g.links[index] = l
	}
	return errors.Join(errs...)
}

// Close takes the program away.
func (g *Ingress) Close() error {
	var errs []error
	for _, l := range g.links {
		errs = append(errs, l.Close())
	}
	g.links = nil
	errs = append(errs, g.objs.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close ingress program: %w", err)
	}
	return nil
}
