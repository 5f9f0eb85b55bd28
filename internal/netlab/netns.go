package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// runDir is where iproute2 looks for named namespaces (ip-netns(8)).
const runDir = "/run/netns"

const namePrefix = "paste-"

// mine holds the names that this process owns, so that a predecessor with the
// same pid (usual in containers) is not mistaken for ourselves.
var mine sync.Map

func name(prefix, role string, pid int) string {
	return namePrefix + prefix + "-" + role + "-" + strconv.Itoa(pid)
}

// Netns is a network namespace, held open by a descriptor. Its methods may be
// called from several goroutines.
type Netns struct {
	fd    int
	name  string // under /run/netns, if it has one
	own   bool   // we made it
	spawn *spawner
}

// Name is the namespace's name under /run/netns, empty when it has none.
func (n *Netns) Name() string { return n.name }

// Fd is a descriptor of the namespace, for setns(2). It belongs to n.
func (n *Netns) Fd() int { return n.fd }

// Current is the calling thread's namespace. The caller closes it.
func Current() (*Netns, error) {
	fd, err := openCurrent()
	if err != nil {
		return nil, err
	}
	return &Netns{fd: fd, spawn: newSpawner(fd)}, nil
}

func openCurrent() (int, error) {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open current network namespace: %w", err)
	}
	return fd, nil
}

// NewNetns makes a namespace without a name: it vanishes with this process,
// however that ends. The caller closes it.
func NewNetns() (*Netns, error) {
	fd := -1
	err := inThread(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", needRoot(err))
		}
		fd, err = openCurrent()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create namespace: %w", err)
	}
	return &Netns{fd: fd, own: true, spawn: newSpawner(fd)}, nil
}

// newNamedNetns makes a namespace and mounts it under name.
func newNamedNetns(name string) (*Netns, error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, fmt.Errorf("create namespace %s: %w", name, err)
	}
	path := filepath.Join(runDir, name)
	mine.Store(name, true)
	fd := -1
	err := inThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", needRoot(err))
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
		if err != nil {
			return err
		}
		_ = f.Close()
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			_ = os.Remove(path)
			return fmt.Errorf("mount %s: %w", path, needRoot(err))
		}
		if fd, err = openCurrent(); err != nil {
			_ = removeName(name)
		}
		return err
	})
	if err != nil {
		mine.Delete(name)
		return nil, fmt.Errorf("create namespace %s: %w", name, err)
	}
	return &Netns{fd: fd, name: name, own: true, spawn: newSpawner(fd)}, nil
}

func needRoot(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w; run as root (CAP_SYS_ADMIN and CAP_NET_ADMIN)", err)
	}
	return err
}

// Close kills the commands that still run in the namespace, and removes its name.
// It is for those that NewNetns or Current made; a Lab closes its own.
func (n *Netns) Close() error {
	n.spawn.close()
	err := os.NewSyscallError("close namespace", unix.Close(n.fd))
	n.fd = -1
	if n.name != "" {
		err = errors.Join(err, removeName(n.name))
		mine.Delete(n.name)
	}
	return err
}

func removeName(name string) error {
	path := filepath.Join(runDir, name)
	// EINVAL: its maker died between creating the file and mounting on it.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount namespace %s: %w", name, err)
	}
	// EBUSY: `ip netns add` has put a mount over the whole directory meanwhile,
	// so the namespace's own mount is out of reach until that one goes.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("remove namespace %s: %w", name, err)
	}
	return nil
}

// Sweep removes the namespaces, and with them the devices, of processes that
// no longer live.
func Sweep() error {
	entries, err := os.ReadDir(runDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep namespaces: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if stale(e.Name()) {
			errs = append(errs, removeName(e.Name()))
		}
	}
	return errors.Join(errs...)
}

func stale(name string) bool {
	i := strings.LastIndexByte(name, '-')
	if !strings.HasPrefix(name, namePrefix) || i < len(namePrefix) {
		return false
	}
	pid, err := strconv.Atoi(name[i+1:])
	if err != nil || pid <= 0 {
		return false
	}
	if pid == os.Getpid() {
		_, ours := mine.Load(name)
		return !ours
	}
	return !Alive(pid)
}

// Alive reports whether a process with this pid exists.
func Alive(pid int) bool {
	return !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// Do runs fn on the calling goroutine with its thread inside the namespace.
// Sockets that fn makes stay in the namespace; goroutines that it starts are
// not in it.
func (n *Netns) Do(fn func() error) error {
	runtime.LockOSThread()
	back, err := openCurrent()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer unix.Close(back)
	if err := setns(n.fd); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		// A thread that can't go back stays locked and dies with its
		// goroutine; nobody else must run there.
		if setns(back) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return fn()
}

// Set moves the calling thread into the namespace. The caller's goroutine is locked
// to it; [Netns.Do] is what most want.
func (n *Netns) Set() error { return setns(n.fd) }

func setns(fd int) error {
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", needRoot(err))
	}
	return nil
}

// inThread runs fn in a thread of its own that ends afterwards, for changes
// that are not undone.
func inThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- fn()
	}()
	return <-done
}

// DialContext connects from within the namespace. The address must be a literal
// IP address and port. It fits http.Transport.DialContext.
func (n *Netns) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = n.Do(func() (err error) {
		var d net.Dialer
		d.SetMultipathTCP(false)
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Listen listens for plain TCP (not MPTCP) connections within the namespace.
func (n *Netns) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = n.Do(func() (err error) {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		l, err = lc.Listen(ctx, network, address)
		return err
	})
	return l, err
}

func (n *Netns) netlink() (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(netns.NsHandle(n.fd))
	if err != nil {
		return nil, fmt.Errorf("netlink socket in namespace %q: %w", n.name, err)
	}
	return h, nil
}

// sysctl writes a value below /proc/sys. The net subtree is the calling
// thread's namespace's.
func sysctl(key, value string) error {
	if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl %s: %w", key, err)
	}
	return nil
}
