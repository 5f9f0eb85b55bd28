package bpf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultBPFFS is where a bpffs is mounted by convention.
const DefaultBPFFS = "/sys/fs/bpf"

// mountSource is the source, as /proc/self/mounts shows it, of a bpffs that we
// mounted. That is how a later process knows that it may unmount it.
const mountSource = "paste"

// bpffs is a locked bpffs mount point.
type bpffs struct {
	path    string // as it was asked for
	root    string // where it can be reached from here
	mounted bool
	foreign bool // reached through pid 1's mount namespace
	lock    *pinLock
}

// lockBPFFS finds the bpffs at path ("" = DefaultBPFFS) and locks it against
// others that pin, unpin or list. The directory needs not be a mounted bpffs
// yet. Call close.
//
// `ip netns exec` gives its command a mount namespace with a /sys of its own,
// and a bpffs that the host has mounted is invisible there. Pins are the
// host's, so the bpffs of pid 1 is used when the own mount namespace has none.
func lockBPFFS(ctx context.Context, path string) (*bpffs, error) {
	if path == "" {
		path = DefaultBPFFS
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("bpffs: %w", err)
	}
	b := &bpffs{path: path, root: path}
	if ok, err := isBPFFS(path); errors.Is(err, fs.ErrPermission) {
		return nil, pinError("look into bpffs "+path, err)
	} else if err != nil {
		return nil, fmt.Errorf("bpffs %s: %w; create the directory, or name another mount point (PASTE_BPFFS)", path, err)
	} else if !ok {
		if host := filepath.Join("/proc/1/root", path); otherMountNS() {
			if ok, err := isBPFFS(host); err == nil && ok {
				b.root, b.foreign = host, true
			}
		}
	}

	if b.lock, err = lockPins(ctx); err != nil {
		return nil, fmt.Errorf("lock bpffs %s: %w", path, err)
	}
	// Only now the answer stays true.
	if b.mounted, err = isBPFFS(b.root); err != nil {
		b.lock.release()
		return nil, fmt.Errorf("bpffs %s: %w", path, err)
	}
	return b, nil
}

func isBPFFS(path string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false, os.NewSyscallError("statfs", err)
	}
	return st.Type == unix.BPF_FS_MAGIC, nil
}

// otherMountNS reports whether this process has another mount namespace than
// pid 1, because they have no mount in common: the ids in mountinfo are unique.
// (/proc/1/ns/mnt would say it directly, but not to everybody who may mount.)
func otherMountNS() bool {
	self, init := mountIDs("self"), mountIDs("1")
	if len(self) == 0 || len(init) == 0 {
		return false
	}
	for id := range self {
		if init[id] {
			return false
		}
	}
	return true
}

func mountIDs(pid string) map[string]bool {
	data, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil
	}
	ids := make(map[string]bool)
	for line := range strings.Lines(string(data)) {
		id, _, _ := strings.Cut(line, " ")
		ids[id] = true
	}
	return ids
}

// mount mounts a bpffs unless there is one.
func (b *bpffs) mount() error {
	if b.mounted {
		return nil
	}
	if otherMountNS() {
		return fmt.Errorf("%w at %s in this mount namespace, and what is pinned in a new one would vanish with it: attach it having entered the network namespace alone (`nsenter --net=/run/netns/NAME`)",
			ErrNoBPFFS, b.path)
	}
	if err := unix.Mount(mountSource, b.root, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		if err == unix.EPERM || err == unix.EACCES {
			return privilegeError("mount a bpffs at "+b.path, []string{"CAP_SYS_ADMIN"})
		}
		return fmt.Errorf("mount a bpffs at %s: %w", b.path, os.NewSyscallError("mount", err))
	}
	b.mounted = true
	return nil
}

// base is the directory that holds everything of ours.
func (b *bpffs) base() string { return filepath.Join(b.root, "paste") }

// close removes our directories where they are empty, unmounts the bpffs if we
// mounted it and nothing is left inside, and releases the lock.
func (b *bpffs) close() error {
	defer b.lock.release()
	if !b.mounted {
		return nil
	}
	return b.tidy()
}

// kernelPins are what the kernel itself puts into the first bpffs that is
// mounted (populate_bpffs in kernel/bpf/inode.c).
var kernelPins = []string{"maps.debug", "progs.debug"}

func (b *bpffs) tidy() error {
	entries, err := os.ReadDir(b.base())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return pinError("tidy bpffs "+b.path, err)
	}
	for _, e := range entries {
		os.Remove(filepath.Join(b.base(), e.Name())) // refused unless it is empty
	}
	os.Remove(b.base())

	rest, err := os.ReadDir(b.root)
	if err != nil {
		return pinError("tidy bpffs "+b.path, err)
	}
	rest = slices.DeleteFunc(rest, func(e fs.DirEntry) bool { return slices.Contains(kernelPins, e.Name()) })
	if len(rest) > 0 || b.foreign || !mountedByUs(b.root) {
		return nil
	}
	// Somebody may hold a file or a working directory inside, or we may lack
	// CAP_SYS_ADMIN: then it stays, and the next one to tidy takes it away.
	if err := unix.Unmount(b.root, 0); err != nil && err != unix.EBUSY && err != unix.EPERM {
		return fmt.Errorf("unmount bpffs %s: %w", b.path, err)
	}
	return nil
}

// mountedByUs looks for the top-most mount at root.
func mountedByUs(root string) bool {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return false
	}
	ours := false
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 3 && f[1] == root {
			ours = f[0] == mountSource && f[2] == "bpf"
		}
	}
	return ours
}
