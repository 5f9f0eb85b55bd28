package netlab

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// crashEnv makes the test binary build a lab and then kill itself; "named": one
// whose namespaces have names.
const crashEnv = "PASTE_LAB_TEST_CRASH"

func TestMain(m *testing.M) {
	if os.Getenv(crashEnv) != "" {
		l, err := New(context.Background(), Config{Prefix: "bn", Named: os.Getenv(crashEnv) == "named", Pin: &Pin{}})
		if err != nil {
			panic(err)
		}
		if err := l.ServerCommand(context.Background(), "sleep", "1000").Start(); err != nil {
			panic(err)
		}
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
	goleak.VerifyTestMain(m)
}

func newLab(t *testing.T, cfg Config) *Lab {
	t.Helper()
	cfg.Prefix = "bn"
	l, err := New(context.Background(), cfg)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(l.Close())) })
	return l
}

// echo sends a few bytes from the client to the server's address and back.
func echo(t *testing.T, l *Lab, addr netip.Addr) {
	t.Helper()
	ctx := context.Background()
	ln, err := l.Server.Listen(ctx, "tcp", netip.AddrPortFrom(addr, 0).String())
	qt.Assert(t, qt.IsNil(err))
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			done <- err
			return
		}
		_, err = io.Copy(c, c)
		done <- errors.Join(err, c.Close())
	}()
	c, err := l.Client.DialContext(ctx, "tcp", ln.Addr().String())
	qt.Assert(t, qt.IsNil(err))
	_, err = c.Write([]byte("hello"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(c.(*net.TCPConn).CloseWrite()))
	b, err := io.ReadAll(c)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(string(b), "hello"))
	qt.Assert(t, qt.IsNil(c.Close()))
	qt.Assert(t, qt.IsNil(<-done))
}

func TestLab(t *testing.T) {
	for name, cfg := range map[string]Config{
		"plain":     {},
		"inCaller":  {ServerInCaller: true, Subnet4: netip.MustParsePrefix("10.78.9.0/24"), Subnet6: netip.MustParsePrefix("fd00:78::/64")},
		"pinned":    {Pin: &Pin{ServerCPU: 1, ClientCPU: 0}, NoTxChecksum: true, MTU: 3000},
		"twoQueues": {Queues: 2, Pin: &Pin{}},
		"named":     {Named: true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, cfg)
			echo(t, l, l.ServerIP4)
			if l.ServerIP6.IsValid() {
				echo(t, l, l.ServerIP6)
			}
			out, err := l.ClientCommand(context.Background(), "cat", "/proc/net/dev").Output()
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.StringContains(string(out), l.ClientDev+":"))
			qt.Check(t, qt.Not(qt.StringContains(string(out), l.ServerDev+":")))
		})
	}
}

func TestQuietLab(t *testing.T) {
	l := newLab(t, Config{Quiet: true})
	for _, side := range []struct {
		ns  *Netns
		dev string
	}{{l.Server, l.ServerDev}, {l.Client, l.ClientDev}} {
		qt.Assert(t, qt.IsNil(side.ns.Do(func() error {
			i, err := net.InterfaceByName(side.dev)
			qt.Assert(t, qt.IsNil(err))
			addrs, err := i.Addrs()
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.HasLen(addrs, 0))
			qt.Check(t, qt.Equals(i.Flags&net.FlagUp, net.FlagUp))
			return nil
		})))
	}
}

func TestPinnedThreadsAreWhereTheyShould(t *testing.T) {
	l := newLab(t, Config{Pin: &Pin{ServerCPU: 1, ClientCPU: 0}, Queues: 2})
	for dev, cpu := range map[string]int{l.ServerDev: 1, l.ClientDev: 0} {
		pids, err := napiThreads(dev)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(pids, 2))
		for _, pid := range pids {
			var set unix.CPUSet
			qt.Assert(t, qt.IsNil(unix.SchedGetaffinity(pid, &set)))
			qt.Check(t, qt.Equals(set.Count(), 1))
			qt.Check(t, qt.IsTrue(set.IsSet(cpu)), qt.Commentf("%s", dev))
		}
	}
}

func TestPinnedThreadsDoTheReceiving(t *testing.T) {
	// With checksum offload the kernel would like to avoid NAPI.
	for _, noChecksum := range []bool{false, true} {
		l := newLab(t, Config{Pin: &Pin{ServerCPU: 1, ClientCPU: 0}, NoTxChecksum: noChecksum})
		runs := func(dev string) (n int) {
			pids, err := napiThreads(dev)
			qt.Assert(t, qt.IsNil(err))
			for _, pid := range pids {
				b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/schedstat")
				qt.Assert(t, qt.IsNil(err))
				k, err := strconv.Atoi(strings.Fields(string(b))[2])
				qt.Assert(t, qt.IsNil(err))
				n += k
			}
			return n
		}
		server, client := runs(l.ServerDev), runs(l.ClientDev)
		for range 20 {
			echo(t, l, l.ServerIP4)
		}
		// A handshake alone is several packets each way.
		qt.Check(t, qt.IsTrue(runs(l.ServerDev) >= server+20), qt.Commentf("%d to %d", server, runs(l.ServerDev)))
		qt.Check(t, qt.IsTrue(runs(l.ClientDev) >= client+20), qt.Commentf("%d to %d", client, runs(l.ClientDev)))
	}
}

func TestCongestionControlOfBothEnds(t *testing.T) {
	l := newLab(t, Config{CongestionControl: "reno"})
	ctx := context.Background()
	algorithm := func(c net.Conn) (name string) {
		rc, err := c.(*net.TCPConn).SyscallConn()
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(rc.Control(func(fd uintptr) {
			name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		})))
		qt.Assert(t, qt.IsNil(err))
		return name
	}
	for _, addr := range []netip.Addr{l.ServerIP4, l.ServerIP6} {
		if !addr.IsValid() {
			continue
		}
		ln, err := l.Server.Listen(ctx, "tcp", netip.AddrPortFrom(addr, 0).String())
		qt.Assert(t, qt.IsNil(err))
		defer ln.Close()
		c, err := l.Client.DialContext(ctx, "tcp", ln.Addr().String())
		qt.Assert(t, qt.IsNil(err))
		defer c.Close()
		s, err := ln.Accept()
		qt.Assert(t, qt.IsNil(err))
		defer s.Close()
		qt.Check(t, qt.Equals(algorithm(c), "reno"))
		qt.Check(t, qt.Equals(algorithm(s), "reno"))
	}
}

func TestDoComesBackEvenFromAPanic(t *testing.T) {
	l := newLab(t, Config{})
	home, err := os.Readlink("/proc/thread-self/ns/net")
	qt.Assert(t, qt.IsNil(err))
	func() {
		defer func() { _ = recover() }()
		_ = l.Client.Do(func() error {
			there, err := os.Readlink("/proc/thread-self/ns/net")
			qt.Check(t, qt.IsNil(err))
			qt.Check(t, qt.Not(qt.Equals(there, home)))
			panic("x")
		})
	}()
	now, err := os.Readlink("/proc/thread-self/ns/net")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(now, home))
}

func TestCloseLeavesNothing(t *testing.T) {
	l := newLab(t, Config{Named: true})
	cmd := l.ClientCommand(context.Background(), "sleep", "1000")
	qt.Assert(t, qt.IsNil(cmd.Start()))
	names := []string{l.Server.Name(), l.Client.Name()}
	for _, n := range names {
		var st unix.Statfs_t
		qt.Assert(t, qt.IsNil(unix.Statfs(filepath.Join(runDir, n), &st)))
		qt.Check(t, qt.Equals(st.Type, unix.NSFS_MAGIC))
		qt.Check(t, qt.IsTrue(strings.HasPrefix(n, "paste-bn") && strings.HasSuffix(n, "-"+strconv.Itoa(os.Getpid()))), qt.Commentf("%s", n))
	}
	qt.Assert(t, qt.IsNil(l.Close()))
	qt.Assert(t, qt.IsNil(l.Close()))
	for _, n := range names {
		_, err := os.Stat(filepath.Join(runDir, n))
		qt.Check(t, qt.ErrorIs(err, os.ErrNotExist))
	}
	var exit *exec.ExitError
	qt.Assert(t, qt.ErrorAs(cmd.Wait(), &exit))
	qt.Check(t, qt.Equals(exit.Sys().(syscall.WaitStatus).Signal(), syscall.SIGKILL))
	qt.Check(t, qt.IsNotNil(cmd.Start()))
}

func TestCommandDiesWithItsContext(t *testing.T) {
	l := newLab(t, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	cmd := l.ServerCommand(ctx, "sleep", "1000")
	qt.Assert(t, qt.IsNil(cmd.Start()))
	cancel()
	qt.Assert(t, qt.IsNotNil(cmd.Wait()))
}

// crash runs a process that builds a lab and is killed, and returns its pid.
func crash(t *testing.T, how string) int {
	t.Helper()
	exe, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), crashEnv+"="+how)
	cmd.Stderr = os.Stderr
	_ = cmd.Run()
	qt.Assert(t, qt.Equals(cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(), syscall.SIGKILL))
	return cmd.Process.Pid
}

func TestKilledRunLeavesNothing(t *testing.T) {
	pid := crash(t, "plain")
	dev := "bns1" + strconv.FormatInt(int64(pid), 36)
	// A thread that receives lives as long as its device, which the kernel removes
	// some time after the last process that is in the namespace.
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		pids, err := napiThreads(dev)
		qt.Assert(t, qt.IsNil(err))
		if len(pids) == 0 {
			break
		}
		qt.Assert(t, qt.IsTrue(time.Now().Before(deadline)), qt.Commentf("%s is still there", dev))
	}
	entries, err := os.ReadDir(runDir)
	if !errors.Is(err, os.ErrNotExist) {
		qt.Assert(t, qt.IsNil(err))
	}
	for _, e := range entries {
		qt.Check(t, qt.Not(qt.StringContains(e.Name(), strconv.Itoa(pid))))
	}
}

func TestSweepAfterKill(t *testing.T) {
	keep := newLab(t, Config{Named: true})
	mark := "-" + strconv.Itoa(crash(t, "named"))
	left := func() (n int) {
		entries, err := os.ReadDir(runDir)
		qt.Assert(t, qt.IsNil(err))
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), mark) {
				n++
			}
		}
		return n
	}
	qt.Assert(t, qt.Equals(left(), 2))
	qt.Assert(t, qt.IsNil(Sweep()))
	qt.Assert(t, qt.Equals(left(), 0))
	echo(t, keep, keep.ServerIP4)
}

func TestCommandOnOneCPU(t *testing.T) {
	l := newLab(t, Config{})
	for _, cpu := range []int{0, 1} {
		out, err := l.ServerCommand(context.Background(), "grep", "Cpus_allowed_list", "/proc/self/status").OnCPU(cpu).Output()
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(strings.Fields(string(out))[1], strconv.Itoa(cpu)))
	}
	// The thread that started them is as free as before.
	plain, err := l.ServerCommand(context.Background(), "grep", "Cpus_allowed_list", "/proc/self/status").Output()
	qt.Assert(t, qt.IsNil(err))
	before, err := os.ReadFile("/proc/self/status")
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.StringContains(string(before), string(plain)))
	err = l.ServerCommand(context.Background(), "true").OnCPU(1000).Run()
	qt.Check(t, qt.ErrorMatches(err, "bind to CPU 1000: .*"))
}

func TestStale(t *testing.T) {
	for name, want := range map[string]bool{
		"paste-x-server-" + strconv.Itoa(os.Getpid()): true, // a predecessor with our pid
		"paste-x-server-1":                            false,
		"paste-1":                                     false,
		"paste-x-server-":                             false,
		"other-1234567890":                            false,
		"paste-x-server-999999999":                    true,
	} {
		qt.Check(t, qt.Equals(stale(name), want), qt.Commentf("%s", name))
	}
}

func TestBadConfig(t *testing.T) {
	for _, p := range []string{"toolong", "A", "a-b"} {
		_, err := New(context.Background(), Config{Prefix: p})
		qt.Check(t, qt.ErrorMatches(err, "build lab: prefix .*"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	_, err := New(ctx, Config{Prefix: "bn"})
	qt.Check(t, qt.ErrorIs(err, context.DeadlineExceeded))
}
