package doctor

import (
	"fmt"
	"math"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pastenet/paste/internal/bytesize"
	"github.com/pastenet/paste/pmem"
)

// hugePages says whether a pool can lie in pages that are larger than 4 KiB: on
// hugetlbfs, or on tmpfs where the kernel gives it such pages.
func hugePages(m *machine) Result {
	var free, total, kib int64
	for line := range strings.Lines(m.value("proc/meminfo")) {
		for name, v := range map[string]*int64{"HugePages_Free:": &free, "HugePages_Total:": &total, "Hugepagesize:": &kib} {
			if f := strings.Fields(line); len(f) > 1 && f[0] == name {
				*v, _ = strconv.ParseInt(f[1], 10, 64)
			}
		}
	}
	shmem := chosen(m.value("sys/kernel/mm/transparent_hugepage/shmem_enabled"))
	switch {
	case free*kib<<10 >= m.pool:
		return ok("%d of %d huge pages of %d KiB are free, for a pool on hugetlbfs", free, total, kib)
	case shmem == "always" || shmem == "force" || shmem == "within_size":
		return ok("tmpfs gets huge pages by itself")
	case kib == 0:
		return slow("boot a kernel with CONFIG_HUGETLBFS, or use tmpfs", "this kernel has no hugetlbfs: pools lie in small pages")
	}
	need := (m.pool + kib<<10 - 1) / (kib << 10)
	return slow(fmt.Sprintf("sysctl vm.nr_hugepages=%d && mount -t hugetlbfs none /mnt, and a pool there; or echo always > /sys/kernel/mm/transparent_hugepage/shmem_enabled", total-free+need),
		"%d huge pages are free, and tmpfs gets none (%s): a pool of %s lies in small pages", free, orUnknown(shmem), bytesize.Size(m.pool).Human())
}

// chosen is the word in brackets.
func chosen(s string) string {
	_, s, _ = strings.Cut(s, "[")
	s, _, _ = strings.Cut(s, "]")
	return s
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// daxDevices looks for persistent memory: devices that a pool can lie on
// (Documentation/ABI/testing/sysfs-bus-dax), and namespaces that could become one
// (Documentation/ABI/testing/sysfs-bus-nvdimm).
func daxDevices(m *machine) Result {
	devices, _ := filepath.Glob(m.root + "sys/bus/dax/devices/dax*")
	var names []string
	for _, d := range devices {
		names = append(names, "/dev/"+filepath.Base(d))
	}
	if len(names) > 0 {
		return ok("a pool on %s survives a loss of power", strings.Join(names, ", "))
	}
	blocks, _ := filepath.Glob(m.root + "sys/bus/nd/devices/namespace*.*/block/pmem*")
	if len(blocks) > 0 {
		dir := filepath.Dir(filepath.Dir(blocks[0]))
		return slow("ndctl create-namespace -f -m devdax -e "+filepath.Base(dir)+" (what is on it is lost)",
			"persistent memory is a block device, /dev/%s: no NIC can receive into a file on it", filepath.Base(blocks[0]))
	}
	if regions, _ := filepath.Glob(m.root + "sys/bus/nd/devices/region*"); len(regions) > 0 {
		return slow("ndctl create-namespace -m devdax -r "+filepath.Base(regions[0]), "persistent memory has no namespace yet")
	}
	return ok("no persistent memory: a pool in a file survives what its file system does")
}

func poolBacking(m *machine) Result {
	b, err := pmem.BackingOf(m.opts.Pool)
	if err != nil {
		return failed(Missing, err)
	}
	if b.Staged() {
		return slow("put it on tmpfs, hugetlbfs or a device-DAX device", "%s is on %s: %s", m.opts.Pool, b, b.Durability())
	}
	return ok("%s is on %s: %s", m.opts.Pool, b, b.Durability())
}

// cgroupLimit finds the smallest limit of the process's control group and those above
// it, in a file of version 2 (Documentation/admin-guide/cgroup-v2.rst), and whose it is.
// f reads the file, and is false for one without a limit.
func (m *machine) cgroupLimit(file string, f func(string) (float64, bool)) (limit float64, group string) {
	limit = math.Inf(1)
	for line := range strings.Lines(m.value("proc/self/cgroup")) {
		g, found := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !found {
			continue
		}
		for ; ; g = path.Dir(g) {
			if v, ok := f(m.value("sys/fs/cgroup" + path.Join(g, file))); ok && v < limit {
				limit, group = v, g
			}
			if g == "/" || g == "." {
				break
			}
		}
	}
	return limit, group
}

// besidesPool is what a server needs besides its pool, bytes, about.
const besidesPool = 256 << 20

func cgroupMemory(m *machine) Result {
	limit, group := m.cgroupLimit("/memory.max", func(s string) (float64, bool) {
		v, err := strconv.ParseFloat(s, 64)
		return v, err == nil
	})
	if math.IsInf(limit, 1) {
		return ok("no limit")
	}
	have, pool := bytesize.Size(limit).Human(), bytesize.Size(m.pool).Human()
	if limit < float64(m.pool+besidesPool) {
		return slow("a unit: MemoryMax=; a container: --memory; or a smaller pool",
			"control group %s may have %s, and the frames of a pool of %s are reckoned to it: the kernel may end the server", group, have, pool)
	}
	return ok("control group %s may have %s, enough for a pool of %s", group, have, pool)
}

func cgroupCPU(m *machine) Result {
	limit, group := m.cgroupLimit("/cpu.max", func(s string) (float64, bool) {
		var quota, period float64
		_, err := fmt.Sscan(s, &quota, &period)
		return quota / period, err == nil && period > 0
	})
	if math.IsInf(limit, 1) {
		return ok("no limit")
	}
	if limit < 1 {
		return slow("a unit: CPUQuota=; a container: --cpus", "control group %s may use %.2f of a CPU: a ring stands still for the rest of the time", group, limit)
	}
	return ok("control group %s may use %.1f CPUs", group, limit)
}
