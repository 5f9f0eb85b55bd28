package xsk_test

import (
	"errors"
	"fmt"
	"log"
	"net"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/xsk"
)

// Example sends a frame to itself over the loopback device and receives it in a memfd.
// It needs root.
func Example() {
	text, err := hello("lo")
	if err != nil {
		log.Print(err)
		return
	}
	fmt.Println(text)
	// prints: hello in frame 1
}

func hello(device string) (text string, err error) {
	const frameSize, frameCount = 2048, 64
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return "", err
	}

	// Memory: here a memfd, it could as well be a pool file that outlives us.
	fd, err := unix.MemfdCreate("frames", unix.MFD_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, frameSize*frameCount); err != nil {
		return "", err
	}
	mem, err := unix.Mmap(fd, 0, frameSize*frameCount, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return "", err
	}
	defer unix.Munmap(mem)
	umem, err := xsk.NewUmem(mem, xsk.UmemConfig{FrameSize: frameSize})
	if err != nil {
		return "", err
	}
	defer umem.Close()

	sock, err := xsk.Open(umem, xsk.Options{Ifindex: ifi.Index, RxSize: 64, TxSize: 64})
	if err != nil {
		return "", err
	}
	defer sock.Close()

	// An XDP program that redirects the frames of each queue to its socket.
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return "", err
	}
	defer sockets.Close()
	if err := sockets.Put(uint32(sock.Queue()), uint32(sock.Fd())); err != nil {
		return "", err
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: redirectToQueue(sockets)})
	if err != nil {
		return "", err
	}
	defer prog.Close()
	attached, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifi.Index, Flags: link.XDPGenericMode})
	if err != nil {
		return "", err
	}
	defer attached.Close()

	// Frames 1 and up are for receiving, frame 0 is sent.
	sock.FillFrames([]uint32{1, 2, 3})
	out := xsk.Desc{Addr: 0, Len: 60}
	copy(umem.Bytes(out)[12:], "\x88\xb5hello") // to nobody, EtherType "experimental"
	sock.Transmit([]xsk.Desc{out})
	for sock.TxPending() > 0 {
		if err := sock.KickTx(); err != nil && !errors.Is(err, xsk.ErrAgain) {
			return "", err
		}
	}

	poll := []unix.PollFd{{Fd: int32(sock.Fd()), Events: unix.POLLIN}}
	in := make([]xsk.Desc, 1)
	for sock.Receive(in) == 0 {
		n, err := unix.Poll(poll, 10_000)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return "", err
		}
		if n == 0 {
			return "", errors.New("nothing arrived")
		}
	}
	return fmt.Sprintf("%s in frame %d", umem.Bytes(in[0])[14:19], in[0].Addr/frameSize), nil
}

// TestExample runs the example on the loopback device of a namespace of its own.
func TestExample(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	netlabtest.In(t, netlabtest.NewNetns(t), func() {
		lo, err := netlink.LinkByName("lo")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(netlink.LinkSetUp(lo)))
		text, err := hello("lo")
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(text, "hello in frame 1"))
	})
}
