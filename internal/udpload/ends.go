package udpload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

// findEnds has the kernel find the way to the server, before it sees no frames any
// more, and returns the interface.
func (g *generator) findEnds(ctx context.Context) (dev string, err error) {
	h, err := netlink.NewHandle() // of the calling thread's namespace
	if err != nil {
		return "", fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	peer := g.Addr.Addr().AsSlice()
	routes, err := h.RouteGet(peer)
	if err != nil || len(routes) == 0 || routes[0].Gw != nil {
		return "", fmt.Errorf("find the way to %v: want an interface on which it is a neighbour: %w", g.Addr, err)
	}
	link, err := h.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", fmt.Errorf("find interface %d: %w", routes[0].LinkIndex, err)
	}
	ours, ok := netip.AddrFromSlice(routes[0].Src.To4())
	if !ok || len(link.Attrs().HardwareAddr) != len(g.mac) {
		return "", fmt.Errorf("%s: want an Ethernet interface with an IPv4 address", link.Attrs().Name)
	}
	g.ends = ends{mac: [6]byte(link.Attrs().HardwareAddr), ip: netip.AddrPortFrom(ours, firstPort), peer: g.Addr}
	g.peerMAC, err = resolve(ctx, h, link.Attrs().Index, peer)
	return link.Attrs().Name, err
}

// resolve has the kernel ask for the address of a neighbour.
func resolve(ctx context.Context, h *netlink.Handle, index int, ip net.IP) (mac [6]byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		list, err := h.NeighList(index, netlink.FAMILY_V4)
		if err != nil {
			return mac, fmt.Errorf("list neighbours: %w", err)
		}
		for _, n := range list {
			if n.IP.Equal(ip) && len(n.HardwareAddr) == len(mac) {
				return [6]byte(n.HardwareAddr), nil
			}
		}
		c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: ip, Port: 9}) // that of "discard"
		if err != nil {
			return mac, fmt.Errorf("ask for %v: %w", ip, err)
		}
		_, _ = c.Write([]byte{0}) // it may be refused
		err = errors.Join(ctx.Err(), c.Close())
		if err != nil {
			return mac, fmt.Errorf("ask for %v: %w", ip, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
