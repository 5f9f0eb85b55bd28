package tracefile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/pastenet/paste/pasteapi"
)

func eventOf(way pasteapi.TraceWay, change func(*pasteapi.TraceEvent)) pasteapi.TraceEvent {
	e := pasteapi.TraceEvent{PID: 42}
	e.Way, e.Time, e.Ring = way, time.Unix(1_700_000_000, 123_456_789), 1
	e.Peer, e.Local = netip.MustParseAddrPort("10.0.0.2:4000"), netip.MustParseAddrPort("10.0.0.1:80")
	change(&e)
	return e
}

func events() []pasteapi.TraceEvent {
	v6 := netip.MustParseAddrPort("[fd00::2]:4000")
	return []pasteapi.TraceEvent{
		eventOf(pasteapi.TraceSteered, func(e *pasteapi.TraceEvent) { e.Ticket, e.Len, e.Data = 3<<16|7, 5, []byte("hello") }),
		eventOf(pasteapi.TraceSent, func(e *pasteapi.TraceEvent) { e.Seq, e.Ack, e.Len, e.Data = 9, 5, 2000, []byte("cut off") }),
		eventOf(pasteapi.TraceRead, func(e *pasteapi.TraceEvent) {
			e.Peer, e.Local = v6, netip.MustParseAddrPort("[fd00::1]:80")
			e.Len, e.Data, e.Lost = 3, []byte("six"), 17
		}),
		eventOf(pasteapi.TraceCopied, func(e *pasteapi.TraceEvent) {
			e.Peer, e.Local = netip.MustParseAddrPort("[::ffff:10.0.0.2]:4000"), netip.MustParseAddrPort("[::ffff:10.0.0.1]:80")
			e.Len, e.Data = 65472, bytes.Repeat([]byte{1}, 65472)
		}),
		eventOf(pasteapi.TraceReclaimed, func(e *pasteapi.TraceEvent) { e.Len, e.Data = 1, []byte("x") }),
		eventOf(pasteapi.TraceClosed, func(*pasteapi.TraceEvent) {}),
		eventOf(pasteapi.TraceClosed, func(e *pasteapi.TraceEvent) { e.Cause = "connection reset by peer" }),
		eventOf(pasteapi.TraceRead, func(e *pasteapi.TraceEvent) { e.UDP, e.Len, e.Data = true, 3, []byte("who") }),
	}
}

// comments reads the comments of all packets, block by block, as the reader of pcapgo skips
// them.
func comments(t *testing.T, file []byte) (all []string) {
	t.Helper()
	le := binary.LittleEndian
	for len(file) > 0 {
		typ, n := le.Uint32(file), le.Uint32(file[4:])
		qt.Assert(t, qt.Equals(le.Uint32(file[n-4:]), n))
		if typ == blockPacket {
			options := file[28+(le.Uint32(file[20:])+3)/4*4 : n-4]
			qt.Assert(t, qt.Equals(le.Uint16(options), optComment))
			all = append(all, string(options[4:][:le.Uint16(options[2:])]))
		}
		file = file[n:]
	}
	return all
}

// TestFileReadsBack: another reader finds in a file what was put there.
func TestFileReadsBack(t *testing.T) {
	var file bytes.Buffer
	w, err := NewWriter(&file, 65536)
	qt.Assert(t, qt.IsNil(err))
	for _, e := range events() {
		qt.Assert(t, qt.IsNil(w.Write(e)))
	}
	qt.Assert(t, qt.IsNil(w.Flush()))

	said := comments(t, file.Bytes())
	r, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
	qt.Assert(t, qt.IsNil(err))
	for i, e := range events() {
		data, ci, err := r.ReadPacketData()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(ci.Timestamp.Equal(e.Time)), qt.Commentf("%v", ci.Timestamp))
		iface, err := r.Interface(ci.InterfaceIndex)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(iface.Name, string(e.Way)))
		qt.Check(t, qt.Equals(ci.Length-ci.CaptureLength, e.Len-len(e.Data)))

		p := gopacket.NewPacket(data, layers.LayerTypeIPv4, gopacket.Default)
		if e.Peer.Addr().Unmap().Is6() {
			p = gopacket.NewPacket(data, layers.LayerTypeIPv6, gopacket.Default)
		}
		from, to := e.Peer, e.Local
		if e.Way == pasteapi.TraceSent {
			from, to = to, from
		}
		qt.Check(t, qt.Equals(p.NetworkLayer().NetworkFlow().String(), from.Addr().Unmap().String()+"->"+to.Addr().Unmap().String()))
		qt.Check(t, qt.Equals(said[i], Comment(e)))
		qt.Check(t, qt.StringContains(said[i], "process 42, ring 1"))
		if e.UDP {
			udp := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
			qt.Check(t, qt.Equals(uint16(udp.SrcPort), from.Port()))
			qt.Check(t, qt.Equals(uint16(udp.DstPort), to.Port()))
			qt.Check(t, qt.Equals(string(udp.Payload), string(e.Data)))
			continue
		}
		tcp := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		qt.Check(t, qt.Equals(uint16(tcp.SrcPort), from.Port()))
		qt.Check(t, qt.Equals(uint16(tcp.DstPort), to.Port()))
		qt.Check(t, qt.Equals(tcp.Seq, e.Seq))
		qt.Check(t, qt.Equals(tcp.Ack, e.Ack))
		qt.Check(t, qt.Equals(tcp.FIN, e.Way == pasteapi.TraceClosed && e.Cause == ""))
		qt.Check(t, qt.Equals(tcp.RST, e.Cause != ""))
		qt.Check(t, qt.IsTrue(bytes.Equal(tcp.Payload, e.Data)))
	}
	_, _, err = r.ReadPacketData()
	qt.Check(t, qt.ErrorIs(err, io.EOF))
	qt.Check(t, qt.StringContains(said[0], "way steered, ticket 7/3, verdict: TCP has accepted it"))
	qt.Check(t, qt.StringContains(said[2], "17 events lost before"))
	qt.Check(t, qt.StringContains(said[6], "(connection reset by peer)"))
}

func TestLines(t *testing.T) {
	for i, want := range []string{
		`..:..:..\.123456 10.0.0.2:4000 > 10.0.0.1:80 steered ticket 7/3 seq 0 len 5`,
		`..:..:..\.123456 10.0.0.1:80 > 10.0.0.2:4000 sent seq 9 len 2000`,
		`.* \[fd00::2\]:4000 > \[fd00::1\]:80 read seq 0 len 3`,
		`.* 10.0.0.2:4000 > 10.0.0.1:80 copied seq 0 len 65472`,
		`.* reclaimed seq 0 len 1`,
		`.* closed`,
		`.* closed: connection reset by peer`,
		`.* 10.0.0.2:4000 > 10.0.0.1:80 read datagram len 3`,
	} {
		qt.Check(t, qt.Matches(Line(events()[i]), want))
	}
}

func TestWhatCannotBeWritten(t *testing.T) {
	w, err := NewWriter(io.Discard, 0)
	qt.Assert(t, qt.IsNil(err))
	err = w.Write(eventOf("teleported", func(*pasteapi.TraceEvent) {}))
	qt.Check(t, qt.ErrorMatches(err, `write capture: process 42 tells of a way "teleported", .*`))
	_, err = NewWriter(full{}, 0)
	qt.Check(t, qt.ErrorMatches(err, "write capture: no space"))
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space") }
