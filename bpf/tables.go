package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// portKey is a port as it stands in a TCP header.
func portKey(port uint16) (key [2]byte) {
	binary.BigEndian.PutUint16(key[:], port)
	return key
}

// AddPort steers the segments of local TCP port p from now on, of connections
// that AddConn has added, but for those with less payload than copybreak bytes,
// which pass unless they would overtake a steered one (see Order). Adding a port
// again changes its copybreak.
func (s *Steer) AddPort(p uint16, copybreak int) error {
	if p == 0 {
		return fmt.Errorf("interface %s: steer port 0: a TCP port is 1 to 65535", s.info.NIC)
	}
	if copybreak < 0 || copybreak > math.MaxInt32 {
		return fmt.Errorf("interface %s: steer port %d: copybreak of %d bytes: must not be negative", s.info.NIC, p, copybreak)
	}
	s.clients.ask(p, true)
	return s.putPort(p, copybreak)
}

func (s *Steer) putPort(p uint16, copybreak int) error {
	err := s.maps.SteerPorts.Put(portKey(p), uint32(copybreak))
	if errors.Is(err, unix.E2BIG) {
		return fmt.Errorf("interface %s: steer port %d: all %d entries are in use; remove another port first: %w",
			s.info.NIC, p, s.maps.SteerPorts.MaxEntries(), err)
	}
	if err != nil {
		return fmt.Errorf("interface %s: steer port %d: %w", s.info.NIC, p, err)
	}
	return nil
}

// RemovePort lets the segments of port p pass again, but for those of connections
// that steer it themselves (see SteerClients). Removing a port that is not steered is
// no error.
func (s *Steer) RemovePort(p uint16) error {
	if s.clients.ask(p, false) {
		return nil
	}
	return s.deletePort(p)
}

func (s *Steer) deletePort(p uint16) error {
	if err := s.maps.SteerPorts.Delete(portKey(p)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("interface %s: unsteer port %d: %w", s.info.NIC, p, err)
	}
	return nil
}

// Ports returns the ports that are steered, in ascending order.
func (s *Steer) Ports() ([]uint16, error) {
	var ports []uint16
	var key [2]byte
	var value uint32
	it := s.maps.SteerPorts.Iterate()
	for it.Next(&key, &value) {
		ports = append(ports, binary.BigEndian.Uint16(key[:]))
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("interface %s: list ports: %w", s.info.NIC, err)
	}
	slices.Sort(ports)
	return slices.Compact(ports), nil
}

// connKey is a connection as it stands in what its peer sends.
func connKey(peer, local netip.AddrPort) (key steerConnKey) {
	for i, a := range []netip.Addr{peer.Addr(), local.Addr()} {
		b, words := a.As16(), [...]*[4]uint32{&key.Peer, &key.Local}[i]
		for j := range words {
			words[j] = binary.NativeEndian.Uint32(b[4*j:])
		}
	}
	var ports [4]byte
	binary.BigEndian.PutUint16(ports[0:], peer.Port())
	binary.BigEndian.PutUint16(ports[2:], local.Port())
	key.Ports = binary.NativeEndian.Uint32(ports[:])
	return key
}

// AddConn steers a connection whose local port is steered. device is the index of
// the interface that its socket is bound to, 0 for none; it matters on a NIC with
// VLANs. ring is the one that it is registered with: what comes on a queue of
// another one passes (see Configure). The error wraps unix.E2BIG when the table is
// full. Adding a connection again is no error.
func (s *Steer) AddConn(peer, local netip.AddrPort, device, ring int) error {
	place := steerConnPlace{Vlan: uint16(s.vlans.Load().of(local.Addr(), device)), Ring: uint16(ring)}
	key := connKey(peer, local)
	if err := s.maps.SteerConns.Put(key, place); err != nil {
		return fmt.Errorf("interface %s: steer connection from %s to %s: %w", s.info.NIC, peer, local, err)
	}
	return s.use(key, local)
}

// RemoveConn lets the segments of a connection pass again. Removing one that is
// not steered is no error.
func (s *Steer) RemoveConn(peer, local netip.AddrPort) error {
	key := connKey(peer, local)
	if err := s.maps.SteerConns.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("interface %s: unsteer connection from %s to %s: %w", s.info.NIC, peer, local, err)
	}
	return s.unuse(key, local)
}

// resetConns removes all connections.
func (s *Steer) resetConns() error {
	keys, values := make([]steerConnKey, 4096), make([]steerConnPlace, 4096)
	for {
		// A new look each time: the place of an entry that is gone is no place.
		n, err := s.maps.SteerConns.BatchLookupAndDelete(new(ebpf.MapBatchCursor), keys, values, nil)
		if errors.Is(err, ebpf.ErrKeyNotExist) || err == nil && n == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("interface %s: remove connections: %w", s.info.NIC, err)
		}
	}
}

// Reset removes all ports and connections: those that a crashed application left
// in pinned maps. They do no harm without a socket, for then every packet passes,
// but the next application's sockets must not receive them.
func (s *Steer) Reset() error {
	s.clients.forget()
	ports, err := s.Ports()
	for _, p := range ports {
		err = errors.Join(err, s.deletePort(p))
	}
	return errors.Join(err, s.resetConns())
}

// SetSocket gives the steered segments of an RX queue to the AF_XDP socket fd,
// which must be bound to this NIC and queue. The kernel removes the entry when
// the socket is closed.
func (s *Steer) SetSocket(queue, fd int) error {
	if limit := int(s.maps.SteerXsks.MaxEntries()); queue < 0 || queue >= limit {
		return fmt.Errorf("interface %s: queue %d: steering knows queues 0 to %d", s.info.NIC, queue, limit-1)
	}
	if fd < 0 || fd > math.MaxInt32 {
		return fmt.Errorf("interface %s: queue %d: bad socket %d: %w", s.info.NIC, queue, fd, unix.EBADF)
	}
	if err := s.maps.SteerXsks.Put(uint32(queue), uint32(fd)); err != nil {
		return fmt.Errorf("interface %s: queue %d: set AF_XDP socket: %w", s.info.NIC, queue, err)
	}
	return nil
}
