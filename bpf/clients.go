package bpf

import (
	"net/netip"
	"sync"
)

// clientPorts are the local ports that are steered because a connection that this
// side has opened has them. Each lives as long as its last connection.
type clientPorts struct {
	mu          sync.Mutex
	first, last uint16 // that the kernel gives to sockets which connect; 0, 0: none
	copybreak   int
	asked       map[uint16]struct{} // by AddPort
	conns       map[steerConnKey]struct{}
	count       map[uint16]int // of conns, by port
}

// SteerClients has AddConn steer the local port of a connection too, where that is
// one from first to last, until RemoveConn: nobody could have asked for a port
// that the kernel has chosen. copybreak is that of AddPort.
func (s *Steer) SteerClients(first, last uint16, copybreak int) {
	c := &s.clients
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first, c.last, c.copybreak = first, last, copybreak
	c.conns, c.count = map[steerConnKey]struct{}{}, map[uint16]int{}
}

// ask notes that a port is steered by AddPort, or is not any more. It reports whether
// connections go on steering it.
func (c *clientPorts) ask(port uint16, yes bool) (used bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked == nil {
		c.asked = map[uint16]struct{}{}
	}
	if yes {
		c.asked[port] = struct{}{}
	} else {
		delete(c.asked, port)
	}
	return c.count[port] > 0
}

// use steers the port of a connection, if it is a client's.
func (s *Steer) use(key steerConnKey, local netip.AddrPort) error {
	c, port := &s.clients, local.Port()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == 0 || port < c.first || port > c.last {
		return nil
	}
	if _, known := c.conns[key]; known {
		return nil
	}
	if _, asked := c.asked[port]; !asked && c.count[port] == 0 {
		if err := s.putPort(port, c.copybreak); err != nil {
			return err
		}
	}
	c.conns[key] = struct{}{}
	c.count[port]++
	return nil
}

// unuse ends use.
func (s *Steer) unuse(key steerConnKey, local netip.AddrPort) error {
	c, port := &s.clients, local.Port()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.conns[key]; !known {
		return nil
	}
	delete(c.conns, key)
	if c.count[port]--; c.count[port] > 0 {
		return nil
	}
	delete(c.count, port)
	if _, asked := c.asked[port]; asked {
		return nil
	}
	return s.deletePort(port)
}

// forget is for tables that are empty again.
func (c *clientPorts) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.asked)
	clear(c.conns)
	clear(c.count)
}
