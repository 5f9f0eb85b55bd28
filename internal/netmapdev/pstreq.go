package netmapdev

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// pstOf finds the port that a request is about: the file's own, or the one of that
// name, or, for a NIC's name, the only one of that family.
func (f *File) pstOf(name string) (*pst, *pstBinding, error) {
	family, _, err := pstName(name)
	if err != nil {
		return nil, nil, err
	}
	if b, ok := f.binding().(*pstBinding); ok && strings.HasPrefix(b.port.name, family+":") {
		return b.port, b, nil
	}
	if p := f.d.ports[name]; p != nil {
		return p, nil, nil
	}
	var found *pst
	for n, p := range f.d.ports {
		if strings.HasPrefix(n, family+":") {
			if found != nil {
				return nil, nil, fmt.Errorf("%s: there are several ports %s:…, and the file has none of them: %w", name, family, unix.EINVAL)
			}
			found = p
		}
	}
	if found == nil {
		return nil, nil, fmt.Errorf("%s: there is no port %s:…: %w", name, family, unix.ENXIO)
	}
	return found, nil, nil
}

// pstNIC is NETMAP_REQ_PST_ATTACH and PST_DETACH of "pst:NIC".
func (f *File) pstNIC(c *call) error {
	_, nic, err := pstName(c.portName())
	if err != nil {
		return err
	}
	if _, err := net.InterfaceByName(nic); err != nil {
		return fmt.Errorf("%w: %w", err, unix.ENXIO)
	}
	p, _, err := f.pstOf(c.portName())
	if err != nil {
		return err
	}
	if c.request == reqPSTDetach {
		if _, has := p.nics[nic]; !has {
			return fmt.Errorf("%s: %s is not attached: %w", p.name, nic, unix.ENXIO)
		}
		return p.detachNIC(nic)
	}
	if _, has := p.nics[nic]; has {
		return fmt.Errorf("%s: %s is attached already: %w", p.name, nic, unix.EBUSY)
	}
	if err := p.attachNIC(nic); err != nil {
		return err
	}
	bodyAs[attach](c).port = uint32(len(p.nics))
	return nil
}

// pstSocket is NETMAP_REQ_PST_FD_REG: a connected socket gets under a ring of the
// port, one of those that the file is bound to if it is.
func (f *File) pstSocket(c *call) error {
	fd := *at[uint32](c.body)
	p, b, err := f.pstOf(c.portName())
	switch {
	case err != nil:
		return err
	case fd < 3 || fd > 1<<31-1:
		return fmt.Errorf("descriptor %d: %w", int32(fd), unix.EINVAL)
	case fd >= descriptors:
		return fmt.Errorf("descriptor %d: the last is %d: %w", fd, descriptors-1, unix.ENOMEM)
	}
	rings := p.rings
	if b != nil && len(b.rx) > 0 {
		rings = b.rx
	}
	p.next++
	r := rings[p.next%len(rings)]
	err = r.register(int(fd))
	if err == nil {
		f.d.sockets.Store(int(fd), r)
	}
	return err
}

func (r *pstRing) register(fd int) error {
	r.Lock()
	defer r.Unlock()
	if err := r.Register(fd); err != nil {
		return err
	}
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil || proto != unix.IPPROTO_TCP { // only connections are steered
		return nil
	}
	port, err := localPort(fd)
	if err == nil {
		err = r.port.port.Steer(port)
	}
	if err != nil {
		err = errors.Join(err, r.Unregister(fd))
	}
	return err
}

func localPort(fd int) (uint16, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port), nil
	case *unix.SockaddrInet6:
		return uint16(sa.Port), nil
	}
	return 0, unix.EINVAL
}

// closeSocket closes a socket that is registered, when what the program has put into
// the ring for it is sent. Nothing more is received.
func (d *Device) closeSocket(fd int) (closed bool, err error) {
	v, ok := d.sockets.LoadAndDelete(fd)
	if !ok {
		return false, nil
	}
	r := v.(*pstRing)
	r.Lock()
	defer r.Unlock()
	if err := r.CloseAfterSend(fd); err != nil {
		return false, nil // the port is closed, or the socket is another one by now
	}
	// A broken ring is told to whoever syncs next.
	if err := r.TxSync(); err != nil && !errors.Is(err, pasteapi.ErrRingCorrupt) {
		return true, err
	}
	return true, nil
}
