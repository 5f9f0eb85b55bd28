package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// rawPeer is a TCP connection whose client is this file.
type rawPeer struct {
	link    *rawLink
	segment // what every segment of it has: ports, timestamps
	base    uint32
	their   uint32 // next byte of the server's
	next    uint32 // offset of the byte that the server wants, as of the last barrier
	probes  uint32 // barriers so far
	gone    bool   // the server has answered with RST
}

// A raw peer sends prefix bytes before its first barrier. A barrier repeats
// repeated of them, enough to be steered whatever the copybreak is, so that it
// cannot overtake anything.
const (
	prefix   = 2000
	repeated = 1400
)

// connect does the handshake.
func (r *rawLink) connect(sport, dport uint16) (*rawPeer, error) {
	p := &rawPeer{link: r, segment: segment{sport: sport, dport: dport, tsval: 1 << 20}, base: uint32(sport) * 7919}
	s := p.segment
	s.seq, s.flags, s.syn = p.base-1, syn, true
	if err := r.send(r.frame(s)); err != nil {
		return nil, err
	}
	_, err := p.await(func(in []byte) bool { return in[33]&(syn|ack) == syn|ack })
	if err != nil {
		return nil, fmt.Errorf("answer to SYN: %w", err)
	}
	return p, p.send(segment{}, 0)
}

// send sends a segment that begins at an offset of the stream.
func (p *rawPeer) send(s segment, offset uint32) error {
	s.sport, s.dport, s.tsecr = p.sport, p.dport, p.tsecr
	s.tsval += p.tsval
	s.seq += p.base + offset
	s.ack += p.their
	s.flags ^= ack
	return p.link.send(p.link.frame(s))
}

// await reads what the server sends until one segment is as wanted. It notes
// what every segment says.
func (p *rawPeer) await(want func(ip []byte) bool) ([]byte, error) {
	timeout := time.After(patience)
	for {
		select {
		case in := <-p.link.in:
			if binary.BigEndian.Uint16(in[22:]) != p.sport {
				continue
			}
			flags := in[33]
			seq, sack := binary.BigEndian.Uint32(in[24:]), binary.BigEndian.Uint32(in[28:])
			if flags&rst != 0 {
				p.gone = true
				return in, nil
			}
			if flags&syn != 0 {
				p.their = seq + 1
			}
			if o := tcpOption(in, 8); o != nil {
				p.tsecr = binary.BigEndian.Uint32(o)
			}
			if want(in) {
				p.next = sack - p.base
				return in, nil
			}
		case <-timeout:
			return nil, errors.New("no answer from the server")
		}
	}
}

// tcpOption returns an option's value, of an IP packet.
func tcpOption(in []byte, kind byte) []byte {
	if end := 20 + int(in[32]>>4)*4; end <= len(in) {
		for o := in[40:end]; len(o) >= 2 && o[0] != 0; {
			if o[0] == 1 {
				o = o[1:]
				continue
			}
			n := int(o[1])
			if n < 2 || n > len(o) {
				break
			}
			if o[0] == kind {
				return o[2:n]
			}
			o = o[n:]
		}
	}
	return nil
}

// barrier returns when the server's TCP has seen everything that was sent
// before: it sends bytes that were sent long ago, each time others, and waits for
// the answer that names them (D-SACK, RFC 2883).
func (p *rawPeer) barrier() error {
	if p.gone {
		return nil
	}
	at := p.probes
	if p.probes++; at+repeated > prefix {
		return fmt.Errorf("more than %d barriers", prefix-repeated)
	}
	if err := p.send(segment{payload: make([]byte, repeated)}, at); err != nil {
		return err
	}
	_, err := p.await(func(in []byte) bool {
		o := tcpOption(in, 5)
		return len(o) >= 8 && binary.BigEndian.Uint32(o) == p.base+at && binary.BigEndian.Uint32(o[4:]) == p.base+at+repeated
	})
	if err != nil {
		return fmt.Errorf("barrier %d: %w", at, err)
	}
	return nil
}
