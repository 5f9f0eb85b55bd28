package bpf

import (
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// TestSmallSegments: they pass, but not the large ones of their connection that
// user space has not injected yet.
func TestSmallSegments(t *testing.T) {
	var objs steerObjects
	qt.Assert(t, qt.IsNil(loadSteerObjects(&objs, nil)))
	defer objs.Close()
	s := &Steer{maps: objs.steerMaps}
	qt.Assert(t, qt.IsNil(s.configure(&nic{name: "none", mac: ourMAC}, 1518, 1)))
	qt.Assert(t, qt.IsNil(s.AddPort(ourPort, 1000)))
	addOurConns(t, s)
	order, err := s.Order()
	qt.Assert(t, qt.IsNil(err))
	defer unix.Munmap(s.order)
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0)
	qt.Assert(t, qt.IsNil(err))
	defer unix.Close(fd)
	// Linux 7.2 takes no socket into the map that could not receive.
	qt.Assert(t, qt.IsNil(unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_RX_RING, 64)))
	qt.Assert(t, qt.IsNil(s.SetSocket(0, fd)))

	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			frame := func(payload int) []byte {
				return segment(func(p *packet) { p.v6, p.payload = v6, payload }).build(t)
			}
			send := func(payload int) string {
				t.Helper()
				before, err := s.Counters()
				qt.Assert(t, qt.IsNil(err))
				runXDP(t, objs.PasteSteer, frame(payload))
				after, err := s.Counters()
				qt.Assert(t, qt.IsNil(err))
				for name := range after {
					if after[name] > before[name] {
						return name
					}
				}
				t.Fatal("nothing was counted")
				return ""
			}
			b := frame(1)
			flow, other := FlowOf(b[26:34], b[34:38]), FlowOf(b[26:34], b[36:40])
			if v6 {
				flow, other = FlowOf(b[22:54], b[54:58]), FlowOf(b[22:54], b[56:60])
			}
			const seq = 1 // of every frame
			const small, large = 999, 1000
			qt.Check(t, qt.Equals(send(small), "pass_small"))
			qt.Check(t, qt.Equals(send(large), "redirect"))
			qt.Check(t, qt.Equals(send(small), "redirect"))
			order.Injected(other, seq+small)
			qt.Check(t, qt.Equals(send(small), "redirect"))
			order.Injected(flow, seq+large)
			qt.Check(t, qt.Equals(send(small), "redirect"))
			order.Injected(flow, seq+small)
			qt.Check(t, qt.Equals(send(small), "pass_small"))

			order.ForceQueue(0, true)
			qt.Check(t, qt.Equals(send(small), "redirect"))
			order.Injected(flow, seq+small)
			order.ForceQueue(0, false)
			qt.Check(t, qt.Equals(send(small), "pass_small"))

			order.Force(flow)
			qt.Check(t, qt.Equals(send(small-1), "redirect"))
			qt.Check(t, qt.Equals(send(small-2), "redirect"))
			order.Injected(flow, seq+small-2)
			order.EndForce(flow)
			qt.Check(t, qt.Equals(send(small), "pass_small"))

			// Nothing ends it that happens to connections with the same entry.
			order.Force(flow)
			order.Force(flow) // another one
			qt.Check(t, qt.Equals(send(large), "redirect"))
			order.Injected(flow, seq+large)
			qt.Check(t, qt.Equals(send(small), "redirect"))
			order.Injected(flow, seq+small)
			qt.Check(t, qt.Equals(send(small), "redirect"))
			order.EndForce(flow)
			order.Injected(flow, seq+small)
			qt.Check(t, qt.Equals(send(small), "redirect"))
			order.EndForce(flow)
			order.Injected(flow, seq+small)
			qt.Check(t, qt.Equals(send(small), "pass_small"))
		})
	}
	qt.Check(t, qt.IsNotNil(s.AddPort(ourPort, -1)))
}
