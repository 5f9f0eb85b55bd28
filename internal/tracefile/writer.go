// Package tracefile writes what a trace of a port has seen (pasteapi.Trace): as a capture
// file, and in lines.
package tracefile

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/pastenet/paste/pasteapi"
)

// maxHeaders is more than the headers take that a packet gets, bytes.
const maxHeaders = 60

// Writer writes a capture file (pcapng). Each event is a packet whose headers are made
// up: addresses and ports are the connection's, sequence numbers count from the
// beginning of the trace. There is an interface for each way, and a comment on each packet.
type Writer struct {
	out *bufio.Writer
	p   pcapng
	buf gopacket.SerializeBuffer
}

// NewWriter begins a file of events of which up to snap bytes are known.
func NewWriter(w io.Writer, snap int) (*Writer, error) {
	out := bufio.NewWriterSize(w, 64<<10)
	f := &Writer{out: out, p: pcapng{w: out}, buf: gopacket.NewSerializeBuffer()}
	if err := f.p.section("pastectl trace"); err != nil {
		return nil, err
	}
	for _, way := range pasteapi.TraceWays {
		if err := f.p.networkInterface(string(way), uint32(snap+maxHeaders)); err != nil {
			return nil, err
		}
	}
	return f, f.Flush()
}

// Flush writes what is still in memory.
func (f *Writer) Flush() error {
	if err := f.out.Flush(); err != nil {
		return fmt.Errorf("write capture: %w", err)
	}
	return nil
}

// Write adds an event.
func (f *Writer) Write(e pasteapi.TraceEvent) error {
	iface := slices.Index(pasteapi.TraceWays, e.Way)
	if iface < 0 {
		return fmt.Errorf("write capture: process %d tells of a way %q, which this version does not know", e.PID, e.Way)
	}
	headers, err := f.packet(&e)
	if err != nil {
		return fmt.Errorf("write capture: %w", err)
	}
	return f.p.packet(iface, e.Time, f.buf.Bytes(), headers+e.Len, Comment(e))
}

// packet makes the packet, and says how long its headers are.
func (f *Writer) packet(e *pasteapi.TraceEvent) (headers int, err error) {
	from, to := ends(e)
	proto, transport, size := layers.IPProtocolTCP, gopacket.SerializableLayer(&layers.TCP{
		SrcPort: layers.TCPPort(from.Port()), DstPort: layers.TCPPort(to.Port()),
		Seq: e.Seq, Ack: e.Ack, ACK: true, PSH: e.Len > 0, Window: 1<<16 - 1, DataOffset: 5,
		FIN: e.Way == pasteapi.TraceClosed && e.Cause == "", RST: e.Cause != "",
	}), 20
	if e.UDP {
		proto, size = layers.IPProtocolUDP, 8
		transport = &layers.UDP{SrcPort: layers.UDPPort(from.Port()), DstPort: layers.UDPPort(to.Port()), Length: length16(size + e.Len)}
	}
	layersOf := []gopacket.SerializableLayer{transport, gopacket.Payload(e.Data)}
	// Lengths are those of the bytes that were there, of which Data may have less.
	if src := from.Addr().Unmap(); src.Is4() {
		headers = 20 + size
		ip := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: proto, Length: length16(headers + e.Len),
			SrcIP: net.IP(src.AsSlice()), DstIP: net.IP(to.Addr().Unmap().AsSlice())}
		layersOf = slices.Insert(layersOf, 0, gopacket.SerializableLayer(ip))
	} else {
		headers = 40 + size
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, Length: length16(size + e.Len),
			SrcIP: net.IP(src.AsSlice()), DstIP: net.IP(to.Addr().AsSlice())}
		layersOf = slices.Insert(layersOf, 0, gopacket.SerializableLayer(ip))
	}
	return headers, gopacket.SerializeLayers(f.buf, gopacket.SerializeOptions{}, layersOf...)
}

// length16 is a length in a header; 0, as by segmentation offload, where it is too long.
func length16(n int) uint16 {
	if n > 1<<16-1 {
		return 0
	}
	return uint16(n)
}

// ends are where bytes came from, and went to.
func ends(e *pasteapi.TraceEvent) (from, to netip.AddrPort) {
	if e.Way == pasteapi.TraceSent {
		return e.Local, e.Peer
	}
	return e.Peer, e.Local
}

// verdicts say what became of bytes.
var verdicts = map[pasteapi.TraceWay]string{
	pasteapi.TraceSteered:   "TCP has accepted it, the verdict has claimed the ticket: it is in place",
	pasteapi.TraceCopied:    "TCP has accepted it, the verdict has copied it",
	pasteapi.TraceRead:      "TCP has accepted it, it was read from the socket",
	pasteapi.TraceReclaimed: "TCP did not take it: a duplicate, out of its window, or damaged",
	pasteapi.TraceClosed:    "nothing follows",
	pasteapi.TraceSent:      "the socket has taken it",
}

// Comment says in words what an event is.
func Comment(e pasteapi.TraceEvent) string {
	var b strings.Builder
	fmt.Fprintf(&b, "way %s", e.Way)
	if e.Ticket != 0 {
		fmt.Fprintf(&b, ", ticket %s", ticket(e.Ticket))
	}
	if e.UDP {
		fmt.Fprint(&b, ", a datagram")
	} else {
		fmt.Fprintf(&b, ", verdict: %s", verdicts[e.Way])
	}
	if e.Cause != "" {
		fmt.Fprintf(&b, " (%s)", e.Cause)
	}
	fmt.Fprintf(&b, ", process %d, ring %d", e.PID, e.Ring)
	if e.Lost > 0 {
		fmt.Fprintf(&b, ", %d events lost before", e.Lost)
	}
	return b.String()
}

// ticket writes a ticket as its slot and its generation.
func ticket(t uint32) string { return fmt.Sprintf("%d/%d", t&0xffff, t>>16) }

// Line is an event for people to watch.
func Line(e pasteapi.TraceEvent) string {
	from, to := ends(&e)
	line := fmt.Sprintf("%s %v > %v %s", e.Time.Local().Format("15:04:05.000000"), unmap(from), unmap(to), e.Way)
	if e.Ticket != 0 {
		line += " ticket " + ticket(e.Ticket)
	}
	if e.Way == pasteapi.TraceClosed {
		if e.Cause != "" {
			line += ": " + e.Cause
		}
		return line
	}
	if e.UDP {
		return fmt.Sprintf("%s datagram len %d", line, e.Len)
	}
	return fmt.Sprintf("%s seq %d len %d", line, e.Seq, e.Len)
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
