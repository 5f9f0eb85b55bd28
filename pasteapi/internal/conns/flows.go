package conns

import (
	"encoding/binary"
	"net/netip"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pasteapi/internal/wire"
)

// flow4 and flow6 are the two ends of a connection as they stand in a received
// packet, in network byte order: source is the peer.
type flow4 struct {
	addrs uint64 // source, destination
	ports uint32 // source, destination
}

type flow6 struct {
	addrs [32]byte
	ports uint32
}

// Flows finds what belongs to the connection of a received packet.
type Flows[T any] struct {
	v4 map[flow4]*T
	v6 map[flow6]*T
}

// NewFlows returns an empty table.
func NewFlows[T any]() Flows[T] {
	return Flows[T]{v4: map[flow4]*T{}, v6: map[flow6]*T{}}
}

// Find returns what was added for the connection of a segment, or nil. f is the
// frame that s was read from.
func (t *Flows[T]) Find(s *wire.Segment, f []byte) *T {
	ports := binary.NativeEndian.Uint32(f[s.L4:])
	if s.V6 {
		return t.v6[flow6{addrs: [32]byte(s.Addrs(f)), ports: ports}]
	}
	return t.v4[flow4{addrs: binary.NativeEndian.Uint64(s.Addrs(f)), ports: ports}]
}

// Add enters a connection. The latest of those with the same ends counts.
func (t *Flows[T]) Add(c *Conn, v *T) {
	if c.Peer.Addr().Is4() {
		t.v4[key4(c)] = v
	} else {
		t.v6[key6(c)] = v
	}
}

// Remove takes a connection out and reports whether it was there: another one
// with the same ends may have taken its place, after the socket was closed without
// a word.
func (t *Flows[T]) Remove(c *Conn, v *T) bool {
	if c.Peer.Addr().Is4() {
		return remove(t.v4, key4(c), v)
	}
	return remove(t.v6, key6(c), v)
}

func remove[K comparable, T any](m map[K]*T, k K, v *T) bool {
	if m[k] != v {
		return false
	}
	delete(m, k)
	return true
}

func ports(src, dst netip.AddrPort) (b [4]byte) {
	binary.BigEndian.PutUint16(b[0:], src.Port())
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	return b
}

func key4(c *Conn) flow4 {
	var b [8]byte
	s, d, p := c.Peer.Addr().As4(), c.Local.Addr().As4(), ports(c.Peer, c.Local)
	copy(b[0:], s[:])
	copy(b[4:], d[:])
	return flow4{addrs: binary.NativeEndian.Uint64(b[:]), ports: binary.NativeEndian.Uint32(p[:])}
}

func key6(c *Conn) flow6 {
	p := ports(c.Peer, c.Local)
	k := flow6{ports: binary.NativeEndian.Uint32(p[:])}
	s, d := c.Peer.Addr().As16(), c.Local.Addr().As16()
	copy(k.addrs[0:], s[:])
	copy(k.addrs[16:], d[:])
	return k
}

// flowOf is wire.Segment.Flow of what the peer sends.
func flowOf(peer, local netip.AddrPort) bpf.Flow {
	p := ports(peer, local)
	return bpf.FlowOf(append(peer.Addr().AsSlice(), local.Addr().AsSlice()...), p[:])
}
