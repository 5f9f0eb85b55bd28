package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/pastenet/paste/internal/childproc"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/testwait"
)

// TestTraceOfAServer: the capture file of a server that steers has what a client sent and
// got, with the way of each piece, and no other connection's.
func TestTraceOfAServer(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t))
	body := random(1<<20, 7)
	c := newClient(t, l)
	_, err := post(c, s.url, random(100_000, 8)) // before the trace
	qt.Assert(t, qt.IsNil(err))

	file := filepath.Join(t.TempDir(), "trace.pcapng")
	tracer, err := childproc.Start(l.ServerCommand(context.Background(), pastectl, "trace",
		"--pid", itoa(s.PID()), "--peer", l.ClientIP4.String(), "--port", "8080", "--snaplen", "65536", "-w", file))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(tracer.Kill)
	testwait.Until(t, "the trace's beginning", func() bool { return strings.Contains(tracer.Said(), "tracing") || !tracer.Running() })

	own := newClient(t, l)
	own.Transport.(*http.Transport).DisableKeepAlives = true
	_, err = post(own, s.url, body)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(get(own, s.url)))
	qt.Assert(t, qt.IsNil(tracer.Stop()), qt.Commentf("%s", tracer.Said()))
	qt.Check(t, qt.StringContains(tracer.Said(), ", 0 lost"))

	conns := readCapture(t, file)
	var posted, got string
	for _, c := range conns {
		if strings.HasPrefix(c.in, "POST") {
			posted = c.in
			qt.Check(t, qt.StringContains(c.out, "201 Created"))
			qt.Check(t, qt.IsTrue(c.ways["steered"] > 0), qt.Commentf("%v", c.ways))
		} else {
			got = c.out
		}
	}
	qt.Assert(t, qt.HasLen(conns, 2))
	qt.Check(t, qt.IsTrue(strings.HasSuffix(posted, string(body))), qt.Commentf("%d bytes", len(posted)))
	qt.Check(t, qt.StringContains(got, "200 OK"))

	stdout, stderr, err := ctl(l, "trace", "--pid", "1")
	qt.Check(t, qt.IsNotNil(err))
	qt.Check(t, qt.Equals(stdout, ""))
	qt.Check(t, qt.StringContains(stderr, "process 1: no process with an open port"))
}

// captured is what a capture file has of one connection.
type captured struct {
	in, out string
	ways    map[string]int
}

// readCapture joins the payloads of each connection, by the client's port. What is missing,
// or twice, fails the test.
func readCapture(t *testing.T, path string) map[uint16]*captured {
	t.Helper()
	file, err := os.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.DefaultNgReaderOptions)
	qt.Assert(t, qt.IsNil(err))
	all := map[uint16]*captured{}
	for {
		data, ci, err := r.ReadPacketData()
		if err != nil {
			qt.Check(t, qt.Equals(fmt.Sprint(err), "EOF"))
			return all
		}
		iface, err := r.Interface(ci.InterfaceIndex)
		qt.Assert(t, qt.IsNil(err))
		tcp := gopacket.NewPacket(data, layers.LayerTypeIPv4, gopacket.Default).Layer(layers.LayerTypeTCP).(*layers.TCP)
		port := uint16(tcp.SrcPort)
		if iface.Name == "sent" {
			port = uint16(tcp.DstPort)
		}
		c := all[port]
		if c == nil {
			c = &captured{ways: map[string]int{}}
			all[port] = c
		}
		c.ways[iface.Name]++
		if iface.Name == "reclaimed" {
			continue
		}
		to := &c.in
		if iface.Name == "sent" {
			to = &c.out
		}
		qt.Assert(t, qt.Equals(int(tcp.Seq), len(*to)))
		*to += string(tcp.Payload)
	}
}

// TestTraceOfWhatIsDropped: what was steered, and a firewall keeps from TCP, is in a trace.
func TestTraceOfWhatIsDropped(t *testing.T) {
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t))
	tracer, err := childproc.Start(l.ServerCommand(context.Background(), pastectl, "trace", "--json"))
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(tracer.Kill)
	testwait.Until(t, "the trace's beginning", func() bool { return strings.Contains(tracer.Said(), "tracing") || !tracer.Running() })
	way := func(way string) func([]byte) bool {
		return func(line []byte) bool {
			var e struct {
				Way    string `json:"way"`
				Ticket uint32 `json:"ticket"`
			}
			return json.Unmarshal(line, &e) == nil && e.Way == way && e.Ticket != 0
		}
	}
	c := dial(t, l, s.addr)
	_, err = c.Write([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + string(random(200_000, 1))))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(tracer.Await("something that is steered", way("steered"))))
	nft(t, l, "table inet trace { chain in { type filter hook input priority 0; tcp dport 8080 drop; }; }")
	_, err = c.Write(random(20_000, 2))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(tracer.Await("something that TCP does not get", way("reclaimed"))))
	qt.Check(t, qt.IsNil(tracer.Stop()))
}
