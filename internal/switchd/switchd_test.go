package switchd_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/pastenet/paste/internal/framelog"
	"github.com/pastenet/paste/internal/interrupt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/internal/serve"
	"github.com/pastenet/paste/internal/switchd"
	"github.com/pastenet/paste/internal/testwait"
	"github.com/pastenet/paste/pmem"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// helperEnv makes the test binary a switch; its value is the configuration.
const helperEnv = "SWITCHD_TEST_CONFIG"

type helperConfig struct {
	Ports []string
	Pool  string
	Size  int64
	Mode  framelog.Mode
	Keep  bool
	Slots int
}

func TestMain(m *testing.M) {
	if v := os.Getenv(helperEnv); v != "" {
		os.Exit(helperMain(v))
	}
	goleak.VerifyTestMain(m)
}

func helperMain(config string) int {
	var c helperConfig
	if err := json.Unmarshal([]byte(config), &c); err != nil {
		panic(err)
	}
	ctx, stop := interrupt.Context(context.Background())
	defer stop()
	err := switchd.Run(ctx, switchd.Config{
		Ports: c.Ports, Mode: c.Mode, Keep: c.Keep, Slots: c.Slots, Pool: serve.Pool{Path: c.Pool, Size: c.Size},
		Report: func(e *switchd.Event) error { return json.NewEncoder(os.Stdout).Encode(e) },
	})
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return 1
	}
	return 0
}

// bench is two namespaces a and b with an address each, behind veths whose other ends
// are together in a third one, where the switch runs.
type bench struct {
	mid      *netlab.Netns
	labs     [2]*netlab.Lab
	devs     [2]string // in mid
	captured [2]*capture
}

var addrs = [2]string{"10.9.8.1", "10.9.8.2"}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{mid: netlabtest.NewNetns(t)}
	for i := range b.labs {
		l := netlabtest.New(t, netlab.Config{Prefix: "sw", Quiet: true, NoTxChecksum: true})
		b.labs[i], b.devs[i] = l, l.ServerDev
		netlabtest.In(t, l.Client, func() {
			link, err := netlink.LinkByName(l.ClientDev)
			qt.Assert(t, qt.IsNil(err))
			a, err := netlink.ParseAddr(addrs[i] + "/24")
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(netlink.AddrAdd(link, a)))
		})
		netlabtest.In(t, l.Server, func() {
			link, err := netlink.LinkByName(l.ServerDev)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(netlink.LinkSetNsFd(link, b.mid.Fd())))
		})
		netlabtest.In(t, b.mid, func() {
			link, err := netlink.LinkByName(l.ServerDev)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(os.WriteFile("/proc/sys/net/ipv6/conf/"+l.ServerDev+"/disable_ipv6", []byte("1"), 0)))
			qt.Assert(t, qt.IsNil(netlink.LinkSetUp(link)))
		})
	}
	return b
}

// start runs a switch and waits until it is ready.
func (b *bench) start(t *testing.T, c helperConfig) (cmd *netlab.Cmd, out *bufio.Reader) {
	t.Helper()
	c.Ports = []string{"netmap:" + b.devs[0], "netmap:" + b.devs[1]}
	text, err := json.Marshal(c)
	qt.Assert(t, qt.IsNil(err))
	cmd = b.mid.Command(context.Background(), "env", helperEnv+"="+string(text), os.Args[0])
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(cmd.Start()))
	out = bufio.NewReader(pipe)
	qt.Assert(t, qt.Equals(event(t, out).Event, switchd.Ready))
	return cmd, out
}

func event(t *testing.T, out *bufio.Reader) (e switchd.Event) {
	t.Helper()
	line, err := out.ReadBytes('\n')
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(json.Unmarshal(line, &e)), qt.Commentf("%s", line))
	return e
}

// transfer sends size bytes from a to b by TCP and back.
func (b *bench) transfer(t *testing.T, size int) {
	t.Helper()
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(data)
	var lis net.Listener
	netlabtest.In(t, b.labs[1].Client, func() {
		var err error
		lis, err = net.Listen("tcp", addrs[1]+":0")
		qt.Assert(t, qt.IsNil(err))
	})
	defer lis.Close()
	go func() {
		c, err := lis.Accept()
		if err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	var c net.Conn
	netlabtest.In(t, b.labs[0].Client, func() {
		var err error
		c, err = net.Dial("tcp", lis.Addr().String())
		qt.Assert(t, qt.IsNil(err))
	})
	go func() {
		_, _ = c.Write(data)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	sum := sha256.New()
	n, err := io.Copy(sum, c)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(n, int64(size)))
	want := sha256.Sum256(data)
	qt.Check(t, qt.IsTrue(bytes.Equal(sum.Sum(nil), want[:])))
	c.Close()
}

// capture counts the frames at one end, both ways, by their bytes.
type capture struct {
	fd     int
	frames map[string]int
}

func (b *bench) capture(t *testing.T) {
	t.Helper()
	for i, l := range b.labs {
		c := &capture{frames: map[string]int{}}
		netlabtest.In(t, l.Client, func() {
			link, err := net.InterfaceByName(l.ClientDev)
			qt.Assert(t, qt.IsNil(err))
			all := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)
			c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 128<<20)))
			qt.Assert(t, qt.IsNil(unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})))
		})
		t.Cleanup(func() { unix.Close(c.fd) })
		b.captured[i] = c
	}
}

func (c *capture) read() {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if err != nil {
			return
		}
		c.frames[string(buf[:n])]++
	}
}

// logged counts the frames of a log, as a capture file shows them.
func logged(t *testing.T, path string) (frames map[string]int, total int) {
	t.Helper()
	p, err := pmem.Open(path, pmem.Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	var file bytes.Buffer
	n, err := framelog.WritePcapng(&file, p.Log())
	qt.Assert(t, qt.IsNil(err))
	r, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
	qt.Assert(t, qt.IsNil(err))
	frames = map[string]int{}
	for {
		f, ci, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(ci.InterfaceIndex < 2))
		frames[string(f)]++
		total++
	}
	qt.Check(t, qt.Equals(n, total))
	return frames, total
}

func poolPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sw")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "frames")
}

// TestLogIsWhatWasSeen passes TCP between two namespaces, by each mode; the log has
// exactly the frames that captures at both ends have.
func TestLogIsWhatWasSeen(t *testing.T) {
	for _, mode := range []framelog.Mode{framelog.Copy, framelog.ZeroCopy} {
		t.Run(mode.String(), func(t *testing.T) {
			b := newBench(t)
			path := poolPath(t)
			cmd, out := b.start(t, helperConfig{Pool: path, Size: 128 << 20, Mode: mode})
			b.capture(t)
			b.transfer(t, 4<<20)
			// What has left one end may still be in the switch, which drops it at its end.
			testwait.Until(t, "all frames to have come to the other end", func() bool {
				b.captured[0].read()
				b.captured[1].read()
				a, c := differ(b.captured[0].frames, b.captured[1].frames)
				return a+c == 0
			})
			qt.Assert(t, qt.IsNil(cmd.Process.Signal(syscall.SIGTERM)))
			last := event(t, out)
			qt.Check(t, qt.IsNil(cmd.Wait()))
			qt.Check(t, qt.Equals(last.Event, switchd.Stopped))
			got, total := logged(t, path)
			qt.Check(t, qt.Equals(uint64(total), last.Log.Frames))
			qt.Check(t, qt.IsTrue(total > 2*(4<<20)/1500))
			qt.Check(t, qt.IsTrue(last.Log.Commits < last.Log.Frames), qt.Commentf("commits of groups"))
			for i, c := range b.captured {
				c.read()
				missing, extra := differ(got, c.frames)
				qt.Check(t, qt.Equals(missing, 0), qt.Commentf("end %d: frames of the log that were not seen", i))
				qt.Check(t, qt.Equals(extra, 0), qt.Commentf("end %d: frames that were seen and are not in the log", i))
			}
			b.untouched(t)
		})
	}
}

func differ(a, b map[string]int) (onlyA, onlyB int) {
	for f, n := range a {
		onlyA += max(n-b[f], 0)
	}
	for f, n := range b {
		onlyB += max(n-a[f], 0)
	}
	return onlyA, onlyB
}

// untouched says that nothing is left on the interfaces of the switch.
func (b *bench) untouched(t *testing.T) {
	t.Helper()
	testwait.Until(t, "the interfaces to be as they were", func() bool {
		left := 0
		netlabtest.In(t, b.mid, func() {
			links, err := netlink.LinkList()
			qt.Assert(t, qt.IsNil(err))
			for _, l := range links {
				if x := l.Attrs().Xdp; x != nil && x.AttachMode != 0 {
					left++
				}
			}
		})
		return left == 0
	})
}

// TestKilledWhileForwarding kills the switch in the middle of a transfer: the interfaces
// are as they were, the log is recovered whole, and the next switch goes on with it.
func TestKilledWhileForwarding(t *testing.T) {
	b := newBench(t)
	path := poolPath(t)
	cmd, _ := b.start(t, helperConfig{Pool: path, Size: 128 << 20, Mode: framelog.ZeroCopy})
	b.capture(t)
	b.transfer(t, 1<<20)
	qt.Assert(t, qt.IsNil(cmd.Process.Kill()))
	_ = cmd.Wait()
	b.untouched(t)
	got, total := logged(t, path)
	qt.Check(t, qt.IsTrue(total > 2*(1<<20)/1500))
	for _, c := range b.captured {
		// What was sent on is in the log. The last frames may not have come to the switch.
		c.read()
		missing, _ := differ(got, c.frames)
		qt.Check(t, qt.IsTrue(missing <= 64), qt.Commentf("%d frames of the log were not seen", missing))
	}
	cmd, out := b.start(t, helperConfig{Pool: path, Mode: framelog.ZeroCopy})
	b.transfer(t, 1<<20)
	qt.Assert(t, qt.IsNil(cmd.Process.Signal(syscall.SIGTERM)))
	last := event(t, out)
	qt.Check(t, qt.IsNil(cmd.Wait()))
	_, all := logged(t, path)
	qt.Check(t, qt.Equals(uint64(all), uint64(total)+last.Log.Frames))
}

// TestFull wraps a log that is too small for a transfer, or keeps what it has: frames
// pass either way, and what is not in the log is counted.
func TestFull(t *testing.T) {
	for _, keep := range []bool{false, true} {
		b := newBench(t)
		path := poolPath(t)
		cmd, out := b.start(t, helperConfig{Pool: path, Size: 8 << 20, Mode: framelog.ZeroCopy, Slots: 128, Keep: keep})
		b.transfer(t, 8<<20)
		qt.Assert(t, qt.IsNil(cmd.Process.Signal(syscall.SIGTERM)))
		last := event(t, out)
		qt.Check(t, qt.IsNil(cmd.Wait()))
		_, total := logged(t, path)
		if keep {
			qt.Check(t, qt.IsTrue(last.Log.Full > 1000), qt.Commentf("%+v", *last.Log))
			qt.Check(t, qt.Equals(uint64(total), last.Log.Frames))
		} else {
			qt.Check(t, qt.IsTrue(last.Log.Wrapped > 1000), qt.Commentf("%+v", *last.Log))
			qt.Check(t, qt.Equals(last.Log.Full, uint64(0)))
			qt.Check(t, qt.IsTrue(total > 500))
		}
		p, err := pmem.Open(path, pmem.Options{})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(p.Misuses(), uint64(0)))
		qt.Check(t, qt.IsNil(p.Close()))
	}
}
