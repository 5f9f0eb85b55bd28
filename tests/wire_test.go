package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wire makes one end of a lab's veth pair send over a bad wire. A TCX program
// turns some of the frames that leave the device aside, into a TAP device; a
// goroutine does to them what their fate is, and sends what is left of them from
// the device. It works without netem, which not every kernel has. Which frames
// are turned aside, and what becomes of them, follows from a seed.
type wire struct {
	count map[string]int // of what was done, by name

	tap  *os.File
	out  int // packet socket on the device
	to   unix.SockaddrLinklayer
	link link.Link
	prog *ebpf.Program
	rand *ebpf.Map // the program's random state
	wg   sync.WaitGroup
	mu   sync.Mutex // of out
	open bool
}

// fate is what may happen to a frame that was turned aside, in shares of 100;
// the rest of them pass late but unharmed.
type fate struct {
	drop     int // it is lost
	repeat   int // it comes two to four times
	reorder  int // up to 3 ms late, behind some that followed it
	delay    int // 20 to 300 ms late, when it has been sent again
	damage   int // with one bit flipped
	truncate int // without its end
}

// wireMark on a frame says that it has been through the goroutine.
const wireMark = 0x7465

// badWire turns one frame in every n aside, for the test's lifetime. The lab
// must have been made with NoTxChecksum: a damaged frame must carry a checksum
// that says so.
func badWire(t *testing.T, ns *netlab.Netns, dev string, n uint32, f fate, seed uint64) {
	t.Helper()
	w := &wire{out: -1, open: true, count: map[string]int{}}
	qt.Assert(t, qt.IsNil(ns.Do(func() error { return w.attach(dev, n, seed) })))
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		w.run(f, rand.New(rand.NewPCG(seed, 1)))
	}()
	t.Cleanup(func() {
		qt.Check(t, qt.IsNil(w.link.Close()))
		qt.Check(t, qt.IsNil(w.prog.Close()))
		qt.Check(t, qt.IsNil(w.rand.Close()))
		qt.Check(t, qt.IsNil(w.tap.Close()))
		w.wg.Wait()
		w.mu.Lock()
		w.open = false // for frames still delayed
		w.mu.Unlock()
		qt.Check(t, qt.IsNil(unix.Close(w.out)))
		qt.Check(t, qt.Not(qt.HasLen(w.count, 0)), qt.Commentf("the wire was a good one"))
		t.Logf("wire at %s, seed %d: %v", dev, seed, w.count)
	})
}

func (w *wire) attach(dev string, n uint32, seed uint64) error {
	nic, err := netlink.LinkByName(dev)
	if err != nil {
		return err
	}
	if w.tap, err = newTap("tetap"); err != nil {
		return err
	}
	tap, err := netlink.LinkByName("tetap")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(tap); err != nil {
		return err
	}
	all := int(uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8))
	if w.out, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	w.to = unix.SockaddrLinklayer{Ifindex: nic.Attrs().Index, Protocol: uint16(all)}
	if err := unix.SetsockoptInt(w.out, unix.SOL_SOCKET, unix.SO_MARK, wireMark); err != nil {
		return err
	}
	w.rand, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return err
	}
	if err := w.rand.Put(uint32(0), uint32(seed)); err != nil {
		return err
	}
	w.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "te_wire", Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: divert(w.rand.FD(), tap.Attrs().Index, n),
	})
	if err != nil {
		return err
	}
	w.link, err = link.AttachTCX(link.TCXOptions{Interface: nic.Attrs().Index, Program: w.prog, Attach: ebpf.AttachTCXEgress})
	return err
}

// divert sends one IPv4 frame in every n to the device `to`, but none with
// wireMark. The numbers of a linear congruential generator decide which; its
// state is in a map, and two CPUs that change it at once do no harm.
func divert(state, to int, n uint32) asm.Instructions {
	// Offsets in struct __sk_buff (include/uapi/linux/bpf.h).
	const offMark, offProtocol = 8, 16
	const next = -1 // TCX_NEXT
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, offMark, asm.Word),
		asm.JEq.Imm(asm.R2, wireMark, "pass"),
		asm.LoadMem(asm.R2, asm.R1, offProtocol, asm.Word),
		asm.JNE.Imm(asm.R2, unix.ETH_P_IP>>8|unix.ETH_P_IP&0xff<<8, "pass"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, state),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.Mul.Imm32(asm.R1, 1664525),
		asm.Add.Imm32(asm.R1, 1013904223),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.Word),
		asm.RSh.Imm32(asm.R1, 16), // the low bits repeat too soon
		asm.Mod.Imm32(asm.R1, int32(n)),
		asm.JNE.Imm32(asm.R1, 0, "pass"),
		asm.Mov.Imm(asm.R1, int32(to)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, next).WithSymbol("pass"),
		asm.Return(),
	}
}

// newTap makes a TAP device in the calling thread's namespace (TUNSETIFF,
// include/uapi/linux/if_tun.h). It goes with its descriptor.
func newTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open TAP device (CONFIG_TUN): %w", err)
	}
	req := struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: unix.IFF_TAP | unix.IFF_NO_PI}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&req))); errno != 0 {
		unix.Close(fd)
		return nil, os.NewSyscallError("ioctl TUNSETIFF", errno)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (w *wire) run(f fate, rng *rand.Rand) {
	buf := make([]byte, 1<<16)
	for {
		n, err := w.tap.Read(buf)
		if err != nil {
			return
		}
		frame := append([]byte(nil), buf[:n]...)
		p := rng.IntN(100)
		happens := func(share int) bool {
			p -= share
			return p < 0 && p >= -share
		}
		switch {
		case happens(f.drop):
			w.count["dropped"]++
		case happens(f.repeat):
			w.count["repeated"]++
			for range 2 + rng.IntN(3) {
				w.send(frame)
			}
		case happens(f.reorder):
			w.count["reordered"]++
			w.later(frame, time.Duration(1+rng.IntN(3000))*time.Microsecond)
		case happens(f.delay):
			w.count["delayed"]++
			w.later(frame, time.Duration(20+rng.IntN(280))*time.Millisecond)
		case happens(f.damage) && damage(frame, rng):
			w.count["damaged"]++
			w.send(frame)
		case happens(f.truncate):
			w.count["truncated"]++
			w.send(truncate(frame, rng))
		default:
			w.send(frame)
		}
	}
}

func (w *wire) later(frame []byte, d time.Duration) {
	time.AfterFunc(d, func() { w.send(frame) })
}

func (w *wire) send(frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open && len(frame) > 0 {
		_ = unix.Sendto(w.out, frame, 0, &w.to) // a full queue is a lossy wire, too
	}
}

// truncate takes a frame's end away, or returns nothing. Half of them have an IP
// header that says so, and a wrong TCP checksum; the others one that promises
// more than there is.
func truncate(f []byte, rng *rand.Rand) []byte {
	const eth, ip = 14, 20
	if len(f) <= eth+ip {
		return nil
	}
	f = f[:eth+rng.IntN(len(f)-eth)]
	if len(f) <= eth+ip || rng.IntN(2) == 0 {
		return f
	}
	binary.BigEndian.PutUint16(f[eth+2:], uint16(len(f)-eth))
	binary.BigEndian.PutUint16(f[eth+10:], 0)
	binary.BigEndian.PutUint16(f[eth+10:], ^checksum(0, f[eth:eth+ip]))
	l4 := f[eth+ip:]
	pseudo := checksum(uint32(unix.IPPROTO_TCP+len(l4)), f[eth+12:eth+20])
	if len(l4) >= 20 && (binary.BigEndian.Uint16(l4[16:]) == pseudo || checksum(uint32(pseudo), l4) == 0xffff) {
		return nil // right by chance, or believed, see damage
	}
	return f
}

// damage flips one bit of a TCP segment's header or payload. It leaves frames
// alone whose checksum happens to look like the partial one that the veth's
// other end may leave to its receiver: those count as correct.
func damage(f []byte, rng *rand.Rand) bool {
	const eth, ip, tcp = 14, 20, 20
	if len(f) < eth+ip+tcp || f[eth] != 0x45 || f[eth+9] != unix.IPPROTO_TCP {
		return false
	}
	end := eth + int(binary.BigEndian.Uint16(f[eth+2:]))
	if end > len(f) || end < eth+ip+tcp {
		return false
	}
	l4 := f[eth+ip : end]
	pseudo := checksum(uint32(unix.IPPROTO_TCP+len(l4)), f[eth+12:eth+20])
	if binary.BigEndian.Uint16(l4[16:]) == pseudo {
		return false
	}
	bit := rng.IntN(len(l4) * 8)
	l4[bit/8] ^= 1 << (bit % 8)
	return binary.BigEndian.Uint16(l4[16:]) != pseudo
}

// Requests and bodies through the server, over the same wire.
func TestBadWireHTTP(t *testing.T) {
	l := newLab(t, netlab.Config{NoTxChecksum: true})
	f := fate{drop: 20, repeat: 20, reorder: 20, damage: 20, truncate: 20}
	s := serve(t, l, poolFile(t))
	badWire(t, l.Client, l.ClientDev, 50, f, 1)
	badWire(t, l.Server, l.ServerDev, 50, f, 2)
	c := newClient(t, l)
	const posts = 24
	var seqs [posts]uint64
	parallel(t, posts, func(i int) (err error) {
		seqs[i], err = post(c, s.url, random(100+i*40_000, int64(i)))
		return errors.Join(err, get(c, s.url))
	})
	s.stop()
	log := readLog(t, s.pool)
	for i, seq := range seqs {
		qt.Check(t, qt.Equals(log[seq], sum(random(100+i*40_000, int64(i)))))
	}
}
