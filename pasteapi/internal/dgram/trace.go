package dgram

import "github.com/pastenet/paste/pasteapi/internal/trace"

// Trace has what is received and sent told to a tap. Nobody is told by default.
func (r *Receiver) Trace(t *trace.Tap) { r.trace = t }

// Trace is as that of a Receiver.
func (s *Sender) Trace(t *trace.Tap) { s.trace = t }

// traced tells of a datagram in a frame, of which n bytes from doff on are the payload.
// Call it only while somebody traces. A header that is not there, or leaves something
// out, stands for the socket's own addresses.
func traced(t *trace.Tap, way trace.Way, s *Socket, b []byte, doff, n int) {
	c := s.Conn
	if src, dst, ok := Addrs(b, doff); ok {
		local, peer := dst, src
		if way == trace.Sent {
			local, peer = src, dst
		}
		if peer.Port() != 0 {
			c.Peer = peer
		}
		if local.Port() != 0 && !local.Addr().IsUnspecified() {
			c.Local = local
		}
	}
	t.Datagram(&c, way, b[doff:][:n])
}
