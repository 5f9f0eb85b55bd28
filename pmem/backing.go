package pmem

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Backing is the kind of memory that a pool lives in.
type Backing uint8

// The kinds of memory. A UMEM can be laid over the first four; of the other
// two, which are staged, the frames are in DRAM and what is kept goes to the
// file as well.
const (
	BackingMemory    Backing = iota + 1 // a memfd of this process
	BackingTmpfs                        // a file on tmpfs
	BackingHugetlbfs                    // a file on hugetlbfs
	BackingDAX                          // a device-DAX character device
	BackingFSDAX                        // a file on a file system mounted with DAX
	BackingFile                         // any other file
)

func (b Backing) String() string {
	switch b {
	case BackingMemory:
		return "memory"
	case BackingTmpfs:
		return "tmpfs"
	case BackingHugetlbfs:
		return "hugetlbfs"
	case BackingDAX:
		return "device-dax"
	case BackingFSDAX:
		return "fs-dax"
	case BackingFile:
		return "file"
	}
	return "unknown"
}

// Staged reports whether frames live in memory of the process, and what is kept
// is stored once more, into the file.
func (b Backing) Staged() bool { return b == BackingFSDAX || b == BackingFile }

// volatile reports whether no flush makes the content survive the machine.
func (b Backing) volatile() bool {
	return b == BackingMemory || b == BackingTmpfs || b == BackingHugetlbfs
}

// Durability says what the content of such a pool survives.
func (b Backing) Durability() string {
	switch b {
	case BackingMemory:
		return "gone with the process"
	case BackingTmpfs, BackingHugetlbfs:
		return "survives the process, not a reboot or a power failure"
	case BackingDAX:
		return "survives the process and the machine"
	case BackingFSDAX:
		return "survives the process and the machine; staged: packets arrive in DRAM, and each one kept is copied into the file"
	case BackingFile:
		return "survives the process and the machine as far as its disk keeps what it has synced; staged: packets arrive in DRAM, and every commit writes to the file and waits for the disk"
	}
	return "unknown"
}

// remedy ends every sentence that refuses a file for where it is.
const remedy = "put the pool in a file on tmpfs such as /dev/shm, on hugetlbfs, on a disk, or on a /dev/daxX.Y device"

// place is what a path, or the directory it is to be created in, stands on.
type place struct {
	backing Backing
	unit    uint64 // the mapping's length must be a multiple of this, in bytes
	devSize uint64 // BackingDAX: bytes of the device
}

// placeOf judges a path without opening it: opening a FIFO or a device may
// block or have effects. An absent file is judged by its directory. A link to nothing
// is refused: what it names would be made at a place that nobody has looked at.
func placeOf(path string) (place, error) {
	var st unix.Stat_t
	judged := path
	err := unix.Stat(path, &st)
	if err == unix.ENOENT {
		if to, err := os.Readlink(path); err == nil {
			return place{}, fmt.Errorf("%w: %s is a symbolic link to %s, where nothing is; name that file itself, or remove the link", ErrNotPool, path, to)
		}
		judged = filepath.Dir(path)
		err = unix.Stat(judged, &st)
	}
	if err != nil {
		return place{}, &os.PathError{Op: "stat", Path: judged, Err: err}
	}
	switch mode := st.Mode & unix.S_IFMT; {
	case mode == unix.S_IFCHR:
		return daxPlace(path, st.Rdev)
	case mode == unix.S_IFREG, mode == unix.S_IFDIR && judged != path:
		return filePlace(path, judged)
	case mode == unix.S_IFDIR:
		return place{}, fmt.Errorf("%w: %s is a directory", ErrNotPool, path)
	default:
		return place{}, fmt.Errorf("%w: %s is neither a file nor a device-DAX device; %s", ErrBacking, path, remedy)
	}
}

// BackingOf says what a pool at path would lie in, or lies in, without opening it.
func BackingOf(path string) (Backing, error) {
	pl, err := placeOf(path)
	if err != nil {
		return 0, fmt.Errorf("pool %s: %w", path, err)
	}
	return pl.backing, nil
}

func filePlace(path, judged string) (place, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(judged, &fs); err != nil {
		return place{}, &os.PathError{Op: "statfs", Path: judged, Err: err}
	}
	switch uint32(fs.Type) {
	case unix.TMPFS_MAGIC:
		return place{backing: BackingTmpfs, unit: uint64(os.Getpagesize())}, nil
	case unix.HUGETLBFS_MAGIC:
		return place{backing: BackingHugetlbfs, unit: uint64(fs.Bsize)}, nil
	}
	name, dax := mountOf(judged)
	if slices.Contains(pseudo, name) {
		return place{}, fmt.Errorf("%w: %s is on %s, which keeps no files; %s", ErrBacking, path, name, remedy)
	}
	pl := place{backing: BackingFile, unit: uint64(os.Getpagesize())}
	if dax {
		pl.backing = BackingFSDAX
	}
	return pl, nil
}

// pseudo are file systems that look like it and store nothing.
var pseudo = []string{"proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "bpf", "debugfs", "tracefs",
	"securityfs", "configfs", "efivarfs", "mqueue", "pstore", "fusectl", "nsfs"}

// mountOf returns the type of the file system that path is on, and whether
// path is accessed by DAX. The type is "" when it cannot be found.
func mountOf(path string) (fstype string, dax bool) {
	var stx unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &stx); err != nil {
		return "", false
	}
	dax = stx.Attributes&unix.STATX_ATTR_DAX != 0
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", dax
	}
	id := strconv.FormatUint(stx.Mnt_id, 10)
	for line := range strings.Lines(string(data)) {
		// "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue" (proc(5))
		pre, post, ok := strings.Cut(line, " - ")
		f := strings.Fields(post)
		if !ok || len(f) < 3 || strings.Fields(pre)[0] != id {
			continue
		}
		for opt := range strings.SplitSeq(f[2], ",") {
			if opt == "dax" || opt == "dax=always" {
				dax = true
			}
		}
		return f[0], dax
	}
	return "", dax
}

// daxAlign is the alignment of mappings of a device-DAX device where sysfs
// does not tell another.
const daxAlign = 2 << 20

// daxPlace accepts a character device of the "dax" subsystem
// (Documentation/ABI/testing/sysfs-bus-dax).
func daxPlace(path string, rdev uint64) (place, error) {
	dir := fmt.Sprintf("/sys/dev/char/%d:%d", unix.Major(rdev), unix.Minor(rdev))
	sub, err := os.Readlink(dir + "/subsystem")
	if err != nil || filepath.Base(sub) != "dax" {
		return place{}, fmt.Errorf("%w: %s is a character device, but not a device-DAX one; %s", ErrBacking, path, remedy)
	}
	size, err := sysUint(dir + "/size")
	if err != nil {
		return place{}, fmt.Errorf("read the size of %s: %w", path, err)
	}
	align, err := sysUint(dir + "/align")
	if err != nil || align == 0 {
		align = daxAlign
	}
	return place{backing: BackingDAX, unit: align, devSize: size}, nil
}

func sysUint(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 0, 64)
}
