package bpf

import (
	"encoding/binary"
	"math/rand"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"
	"github.com/gopacket/gopacket/layers"
)

// steered says what the steering program must do with a frame, by a second
// reading of the rules in steer.bpf.c: the payload lies within the frame, and what
// user space indexes memory by is true.
func steered(f []byte, conns map[steerConnKey]int, room int) bool {
	be := binary.BigEndian.Uint16
	if len(f) < 14 || string(f[:6]) != string(ourMAC) || string(f[6:8]) == string(InjectedMAC[:]) {
		return false
	}
	at, proto, vid := 12, be(f[12:]), 0
	if proto == 0x8100 {
		if len(f) < 18 {
			return false
		}
		vid = int(be(f[14:]) & 0xfff)
		at, proto = 16, be(f[16:])
	}
	ip := f[at+2:]
	var key steerConnKey
	var end int // of the segment in ip
	var tcp []byte
	read := func(words *[4]uint32, b []byte) {
		a, _ := netip.AddrFromSlice(b)
		b16 := a.As16()
		for i := range words {
			words[i] = binary.NativeEndian.Uint32(b16[4*i:])
		}
	}
	switch {
	case proto == 0x0800 && len(ip) >= 20 && ip[0] == 0x45 && ip[9] == 6 && be(ip[6:])&0x3fff == 0:
		read(&key.Peer, ip[12:16])
		read(&key.Local, ip[16:20])
		end, tcp = int(be(ip[2:])), ip[20:]
		end -= 20
	case proto == 0x86dd && len(ip) >= 40 && ip[0]>>4 == 6 && ip[6] == 6:
		read(&key.Peer, ip[8:24])
		read(&key.Local, ip[24:40])
		end, tcp = int(be(ip[4:])), ip[40:]
	default:
		return false
	}
	if len(tcp) < 20 || end > len(tcp) || len(f) > room {
		return false
	}
	header := int(tcp[12]>>4) * 4
	key.Ports = binary.NativeEndian.Uint32(tcp)
	vlan, ours := conns[key]
	return be(tcp[2:]) == ourPort && header >= 20 && header < end && tcp[13]&(2|4|0x20) == 0 && ours && vlan == vid
}

// TestSteerRandomFrames runs the steering program on damaged frames: nothing else
// is steered than what is whole, and every frame is counted once and left as it is.
func TestSteerRandomFrames(t *testing.T) {
	var objs steerObjects
	qt.Assert(t, qt.IsNil(loadSteerObjects(&objs, nil)))
	defer objs.Close()
	s := &Steer{maps: objs.steerMaps}
	const room = 1518
	qt.Assert(t, qt.IsNil(s.configure(&nic{name: "none", mac: ourMAC}, room, 1)))
	qt.Assert(t, qt.IsNil(s.AddPort(ourPort, 0)))
	addOurConns(t, s)
	var cfg steerNicConfig
	qt.Assert(t, qt.IsNil(s.maps.SteerConfig.Lookup(uint32(0), &cfg)))
	cfg.Vlans[ourVLAN/64] |= 1 << (ourVLAN % 64)
	cfg.Vlans[63] |= 1 << 62
	qt.Assert(t, qt.IsNil(s.maps.SteerConfig.Put(uint32(0), cfg)))
	conns := map[steerConnKey]int{}
	var key steerConnKey
	var value steerConnPlace
	for it := s.maps.SteerConns.Iterate(); it.Next(&key, &value); {
		conns[key] = int(value.Vlan)
	}
	qt.Assert(t, qt.HasLen(conns, 6))

	rng := rand.New(rand.NewSource(1))
	var whole [][]byte
	for _, d := range decisions {
		whole = append(whole, d.p.build(t))
	}
	const runs = 10_000
	taken := uint64(0)
	for range runs {
		f := append([]byte(nil), whole[rng.Intn(len(whole))]...)
		for range rng.Intn(4) {
			// Mostly in the headers.
			f[rng.Intn(min(len(f), 60+rng.Intn(40)))] = byte(rng.Intn(256))
		}
		switch rng.Intn(6) {
		case 0:
			f = f[:max(14, rng.Intn(len(f)))]
		case 1:
			f = append(f, make([]byte, rng.Intn(100))...)
		case 2:
			rng.Read(f)
		}
		verdict, out := runXDP(t, objs.PasteSteer, f)
		qt.Assert(t, qt.Equals(verdict, xdpPass)) // there is no socket
		qt.Assert(t, qt.DeepEquals(out, f))
		if steered(f, conns, room) {
			taken++
		}
		if rng.Intn(100) > 0 {
			continue
		}
		after, err := s.Counters()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(after[wouldSteer], taken), qt.Commentf("%x", f))
	}
	after, err := s.Counters()
	qt.Assert(t, qt.IsNil(err))
	total := uint64(0)
	for _, n := range after {
		total += n
	}
	qt.Check(t, qt.Equals(total, runs))
	qt.Check(t, qt.Equals(after[wouldSteer], taken))
	qt.Check(t, qt.IsTrue(taken > runs/20 && taken < runs/2), qt.Commentf("%d of %d", taken, runs))
}

// TestTagRandomFrames runs the programs between injection device and NIC on
// whatever bytes: they change no frame, and a ticket is what the address says.
func TestTagRandomFrames(t *testing.T) {
	tk, err := LoadTicket(TicketOptions{Tickets: 16})
	qt.Assert(t, qt.IsNil(err))
	defer tk.Close()
	var in ingressObjects
	qt.Assert(t, qt.IsNil(loadIngressObjects(&in, nil)))
	defer in.Close()
	const next, redirect = ^uint32(0), 7 // TCX_NEXT, TCX_REDIRECT
	rng := rand.New(rand.NewSource(1))
	run := func(prog *ebpf.Program, f []byte) (verdict, priority uint32) {
		t.Helper()
		out := make([]byte, len(f)+64)
		ctx := make([]byte, 192) // struct __sk_buff
		o := ebpf.RunOptions{Data: f, DataOut: out, Context: ctx, ContextOut: ctx}
		verdict, err := prog.Run(&o)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.DeepEquals(o.DataOut, f))
		return verdict, binary.NativeEndian.Uint32(ctx[32:]) // priority
	}
	for range 2000 {
		f := make([]byte, 34+rng.Intn(200))
		rng.Read(f)
		if rng.Intn(2) == 0 {
			binary.BigEndian.PutUint16(f[12:], uint16(layers.EthernetTypeIPv4))
		}
		ticket := binary.NativeEndian.Uint32(f[8:])
		tk.InjectOn(0)
		verdict, priority := run(tk.objs.PasteTag, f)
		qt.Assert(t, qt.Equals(verdict, next))
		qt.Assert(t, qt.Equals(priority, ticket))
		tk.InjectOn(1)
		verdict, priority = run(tk.objs.PasteTag, f)
		qt.Assert(t, qt.Equals(verdict, redirect))
		qt.Assert(t, qt.Equals(priority, 0))
		// What was not injected is none of its business, whatever its address.
		copy(f[6:], InjectedMAC[:])
		verdict, priority = run(in.PasteIngress, f)
		qt.Assert(t, qt.Equals(verdict, next))
		qt.Assert(t, qt.Equals(priority, 0))
	}
}
