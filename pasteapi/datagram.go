package pasteapi

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/pastenet/paste/pasteapi/internal/dgram"
)

// ErrDatagramSize says that a datagram does not fit a buffer.
var ErrDatagramSize = errors.New("datagram does not fit a buffer")

// SendTo copies a datagram into a TX slot; it leaves with the next TxSync or Poll. to may
// be the zero AddrPort on a socket that is connected. from is the address that it is sent
// from, where the socket is bound to all of them; the zero AddrPort leaves that to the
// kernel. Errors: ErrTxFull, ErrNotRegistered (also of a socket that is not one of UDP),
// ErrDatagramSize, ErrClosed.
func (r *Ring) SendTo(fd int, b []byte, to, from netip.AddrPort) error {
	if r.closed {
		return ErrClosed
	}
	c := r.conns.Find(fd)
	if c == nil || c.dgram == nil {
		return fmt.Errorf("send datagram: fd %d: %w as a UDP socket", fd, ErrNotRegistered)
	}
	tx := r.TX()
	if tx.Empty() {
		return ErrTxFull
	}
	s := tx.slot(tx.Head)
	payload, err := tx.setAddrs(s, from, to, c.dgram.V6(), len(b))
	if err != nil {
		return fmt.Errorf("send to %v: %w", to, err)
	}
	copy(payload, b)
	s.SetFd(fd)
	tx.Head = tx.Next(tx.Head)
	tx.Cur = tx.Head
	return nil
}

// Addrs are the addresses in the headers before a slot's payload: who has sent a
// datagram, and to which address of this host; in a TX slot, the other way round. ok is
// false where there are no such headers, as on connections.
func (n *NetmapRing) Addrs(s *Slot) (src, dst netip.AddrPort, ok bool) {
	return dgram.Addrs(n.Buf(s), s.Doff())
}

// SetAddrs writes the headers of a datagram of size bytes into a slot's buffer, with
// its addresses, sets Doff and Len, and returns the payload to be filled in. src and
// dst mean what from and to do in SendTo.
func (n *NetmapRing) SetAddrs(s *Slot, src, dst netip.AddrPort, size int) ([]byte, error) {
	return n.setAddrs(s, src, dst, false, size)
}

func (n *NetmapRing) setAddrs(s *Slot, src, dst netip.AddrPort, v6 bool, size int) ([]byte, error) {
	buf := n.Buf(s)
	if limit := len(buf) - dgram.Doff6; size < 0 || size > limit {
		return nil, fmt.Errorf("%d bytes: %w: the limit is %d, make the pool with larger frames for more", size, ErrDatagramSize, limit)
	}
	doff := dgram.SetAddrs(buf, src, dst, v6, size)
	s.SetDoff(doff)
	s.Len = uint16(doff + size)
	return buf[doff:s.Len:s.Len], nil
}
