package tracefile

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// Block types, options and the link type of draft-ietf-opsawg-pcapng. The writer of
// gopacket/pcapgo that works with this project's oldest Go writes no comments on packets.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 6 // enhanced

	optEnd     = 0
	optComment = 1
	optName    = 2 // of an interface
	optApp     = 4 // of a section: what wrote it
	optTSResol = 9 // of an interface

	linkRaw = 101 // LINKTYPE_RAW: IPv4 or IPv6, without a header before it

	byteOrder = 0x1a2b3c4d
)

// block collects one block.
type block struct{ b []byte }

func (b *block) u16(v uint16) { b.b = binary.LittleEndian.AppendUint16(b.b, v) }
func (b *block) u32(v uint32) { b.b = binary.LittleEndian.AppendUint32(b.b, v) }

func (b *block) bytes(v []byte) {
	b.b = append(b.b, v...)
	for len(b.b)%4 != 0 {
		b.b = append(b.b, 0)
	}
}

func (b *block) option(code uint16, v string) {
	if len(v) > 1<<16-1 {
		v = v[:1<<16-1]
	}
	b.u16(code)
	b.u16(uint16(len(v)))
	b.bytes([]byte(v))
}

// pcapng writes a capture file.
type pcapng struct {
	w io.Writer
	b block
}

// write writes a block of a type, which fill fills.
func (p *pcapng) write(typ uint32, fill func(*block)) error {
	p.b.b = p.b.b[:0]
	p.b.u32(typ)
	p.b.u32(0)
	fill(&p.b)
	n := uint32(len(p.b.b) + 4)
	p.b.u32(n)
	binary.LittleEndian.PutUint32(p.b.b[4:], n)
	if _, err := p.w.Write(p.b.b); err != nil {
		return fmt.Errorf("write capture: %w", err)
	}
	return nil
}

func (p *pcapng) section(app string) error {
	return p.write(blockSection, func(b *block) {
		b.u32(byteOrder)
		b.u16(1) // version 1.0
		b.u16(0)
		b.u32(0xffffffff) // length of the section: unknown
		b.u32(0xffffffff)
		b.option(optApp, app)
		b.option(optEnd, "")
	})
}

func (p *pcapng) networkInterface(name string, snap uint32) error {
	return p.write(blockInterface, func(b *block) {
		b.u16(linkRaw)
		b.u16(0)
		b.u32(snap)
		b.option(optName, name)
		b.option(optTSResol, "\x09") // nanoseconds
		b.option(optEnd, "")
	})
}

// packet writes a packet of which length bytes were on their way, with a comment.
func (p *pcapng) packet(iface int, at time.Time, data []byte, length int, comment string) error {
	return p.write(blockPacket, func(b *block) {
		ns := uint64(at.UnixNano())
		b.u32(uint32(iface))
		b.u32(uint32(ns >> 32))
		b.u32(uint32(ns))
		b.u32(uint32(len(data)))
		b.u32(uint32(length))
		b.bytes(data)
		b.option(optComment, comment)
		b.option(optEnd, "")
	})
}
