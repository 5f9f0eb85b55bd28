package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
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
// goroutine loses, repeats, delays or damages them and sends what is left of
// them from the device. It works without netem, which not every kernel has.
type wire struct {
	dropped, repeated, delayed, damaged int

	tap  *os.File
	out  int // packet socket on the device
	to   unix.SockaddrLinklayer
	link link.Link
	prog *ebpf.Program
	wg   sync.WaitGroup
	mu   sync.Mutex // of out
	open bool
}

// fate is what may happen to a frame that was turned aside, in shares of 100;
// the rest of them pass late but unharmed.
type fate struct {
	drop, repeat, delay, damage int
}

// wireMark on a frame says that it has been through the goroutine.
const wireMark = 0x7465

// badWire turns one frame in every n aside, for the test's lifetime. The lab
// must have been made with NoTxChecksum: a damaged frame must carry a checksum
// that says so.
func badWire(t *testing.T, ns *netlab.Netns, dev string, n uint32, f fate) {
	t.Helper()
	w := &wire{out: -1, open: true}
	qt.Assert(t, qt.IsNil(ns.Do(func() error { return w.attach(dev, n) })))
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		w.run(f)
	}()
	t.Cleanup(func() {
		qt.Check(t, qt.IsNil(w.link.Close()))
		qt.Check(t, qt.IsNil(w.prog.Close()))
		qt.Check(t, qt.IsNil(w.tap.Close()))
		w.wg.Wait()
		w.mu.Lock()
		w.open = false // for frames still delayed
		w.mu.Unlock()
		qt.Check(t, qt.IsNil(unix.Close(w.out)))
		t.Logf("wire at %s: %d frames dropped, %d repeated, %d delayed, %d damaged", dev, w.dropped, w.repeated, w.delayed, w.damaged)
	})
}

func (w *wire) attach(dev string, n uint32) error {
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
	// Offsets in struct __sk_buff (include/uapi/linux/bpf.h).
	const offMark, offProtocol = 8, 16
	const next = -1 // TCX_NEXT
	w.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "te_wire", Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, offMark, asm.Word),
			asm.JEq.Imm(asm.R2, wireMark, "pass"),
			asm.LoadMem(asm.R2, asm.R1, offProtocol, asm.Word),
			asm.JNE.Imm(asm.R2, unix.ETH_P_IP>>8|unix.ETH_P_IP&0xff<<8, "pass"),
			asm.FnGetPrandomU32.Call(),
			asm.Mod.Imm32(asm.R0, int32(n)),
			asm.JNE.Imm(asm.R0, 0, "pass"),
			asm.Mov.Imm(asm.R1, int32(tap.Attrs().Index)),
			asm.Mov.Imm(asm.R2, 0),
			asm.FnRedirect.Call(),
			asm.Return(),
			asm.Mov.Imm(asm.R0, next).WithSymbol("pass"),
			asm.Return(),
		},
	})
	if err != nil {
		return err
	}
	w.link, err = link.AttachTCX(link.TCXOptions{Interface: nic.Attrs().Index, Program: w.prog, Attach: ebpf.AttachTCXEgress})
	return err
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

func (w *wire) run(f fate) {
	rng := rand.New(rand.NewSource(1))
	buf := make([]byte, 1<<16)
	for {
		n, err := w.tap.Read(buf)
		if err != nil {
			return
		}
		frame := append([]byte(nil), buf[:n]...)
		switch p := rng.Intn(100); {
		case p < f.drop:
			w.dropped++
		case p < f.drop+f.repeat:
			w.repeated++
			for range 1 + rng.Intn(3) {
				w.send(frame)
			}
		case p < f.drop+f.repeat+f.delay:
			// By then the frames behind it have passed.
			w.delayed++
			time.AfterFunc(time.Duration(1+rng.Intn(3000))*time.Microsecond, func() { w.send(frame) })
		case p < f.drop+f.repeat+f.delay+f.damage && damage(frame, rng):
			w.damaged++
			w.send(frame)
		default:
			w.send(frame)
		}
	}
}

func (w *wire) send(frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open {
		_ = unix.Sendto(w.out, frame, 0, &w.to) // a full queue is a lossy wire, too
	}
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
	bit := rng.Intn(len(l4) * 8)
	l4[bit/8] ^= 1 << (bit % 8)
	return binary.BigEndian.Uint16(l4[16:]) != pseudo
}

// Whatever the wire does to the frames, in both directions, the application
// gets the bytes that were sent, and every frame comes back to the pool.
func TestBadWire(t *testing.T) {
	for _, c := range []struct {
		name      string
		copybreak int // negative: every segment has a ticket
		fate
	}{
		{"loss", -1, fate{drop: 100}},
		{"duplicates", -1, fate{repeat: 100}},
		{"reordering", 0, fate{delay: 100}},
		{"damage", 0, fate{damage: 100}},
		{"everything", -1, fate{drop: 25, repeat: 25, delay: 25, damage: 25}},
		{"everything, small segments pass", 0, fate{drop: 25, repeat: 25, delay: 25, damage: 25}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, netlab.Config{NoTxChecksum: true})
			a := startEchoCopybreak(t, l, c.copybreak)
			badWire(t, l.Client, l.ClientDev, 50, c.fate)
			badWire(t, l.Server, l.ServerDev, 50, c.fate)
			parallel(t, 8, func(i int) error {
				return tripFrom(l, a.addr, random(1<<20, int64(i)), 1+i*5000)
			})
			waitFor(t, func() bool { return a.port.Status().Stats.Conns == 0 })
			a.stop(t)
			for _, cause := range a.causes {
				qt.Check(t, qt.IsNil(cause))
			}
		})
	}
}

// Requests and bodies through the server, over the same wire.
func TestBadWireHTTP(t *testing.T) {
	l := newLab(t, netlab.Config{NoTxChecksum: true})
	f := fate{drop: 25, repeat: 25, delay: 25, damage: 25}
	s := serve(t, l, poolFile(t))
	badWire(t, l.Client, l.ClientDev, 50, f)
	badWire(t, l.Server, l.ServerDev, 50, f)
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
