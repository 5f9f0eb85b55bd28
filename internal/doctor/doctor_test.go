package doctor

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// machineOf is one with files of its own under /proc, /sys and /dev, and a pool of 1 GiB.
func machineOf(t *testing.T, files map[string]string) *machine {
	t.Helper()
	root := t.TempDir() + "/"
	for path, text := range files {
		full := filepath.Join(root, path)
		qt.Assert(t, qt.IsNil(os.MkdirAll(filepath.Dir(full), 0o755)))
		qt.Assert(t, qt.IsNil(os.WriteFile(full, []byte(text+"\n"), 0o644)))
	}
	return &machine{ctx: t.Context(), pool: 1 << 30, root: root}
}

// files of a control group two levels down.
func group(file, inner, outer string) map[string]string {
	return map[string]string{
		"proc/self/cgroup":                 "1:cpu:/elsewhere\n0::/a/b",
		"sys/fs/cgroup/a/b/" + file:        inner,
		"sys/fs/cgroup/a/" + file:          outer,
		"sys/fs/cgroup/a/b/cgroup.procs":   "1",
		"sys/kernel/mm/not/of/any/concern": "x",
	}
}

func TestChecks(t *testing.T) {
	const shmem = "sys/kernel/mm/transparent_hugepage/shmem_enabled"
	for name, c := range map[string]struct {
		check        func(*machine) Result
		files        map[string]string
		state        State
		what, remedy string
	}{
		"no huge pages": {hugePages, map[string]string{"proc/meminfo": "HugePages_Total: 10\nHugePages_Free: 4\nHugepagesize: 2048 kB", shmem: "always within_size advise [never] deny force"},
			Slow, ".*tmpfs gets none \\(never\\).*1.0 GiB.*", "sysctl vm.nr_hugepages=518 .*"},
		"huge pages":           {hugePages, map[string]string{"proc/meminfo": "HugePages_Total: 600\nHugePages_Free: 512\nHugepagesize: 2048 kB"}, OK, "512 of 600 .*", ""},
		"huge pages of tmpfs":  {hugePages, map[string]string{"proc/meminfo": "HugePages_Total: 0\nHugepagesize: 2048 kB", shmem: "[always] never"}, OK, "tmpfs .*", ""},
		"none at all":          {hugePages, map[string]string{"proc/meminfo": "MemTotal: 1 kB"}, Slow, ".*no hugetlbfs.*", ".+"},
		"dax":                  {daxDevices, map[string]string{"sys/bus/dax/devices/dax1.0/size": "1"}, OK, ".*/dev/dax1.0.*", ""},
		"a block device":       {daxDevices, map[string]string{"sys/bus/nd/devices/namespace0.1/block/pmem0/size": "1"}, Slow, ".*/dev/pmem0.*", "ndctl create-namespace -f -m devdax -e namespace0.1 .*"},
		"a region":             {daxDevices, map[string]string{"sys/bus/nd/devices/region3/size": "1"}, Slow, ".*no namespace.*", "ndctl create-namespace -m devdax -r region3"},
		"no persistent memory": {daxDevices, nil, OK, "no persistent memory.*", ""},
		"memory of the outer":  {cgroupMemory, group("memory.max", "max", "1073741824"), Slow, "control group /a may have 1.0 GiB.*", ".*MemoryMax.*"},
		"memory of the inner":  {cgroupMemory, group("memory.max", "4294967296", "max"), OK, "control group /a/b may have 4.0 GiB.*", ""},
		"memory without limit": {cgroupMemory, group("memory.max", "max", "max"), OK, "no limit", ""},
		"half a CPU":           {cgroupCPU, group("cpu.max", "50000 100000", "max 100000"), Slow, "control group /a/b may use 0.50.*", ".*CPUQuota.*"},
		"two CPUs":             {cgroupCPU, group("cpu.max", "max 100000", "200000 100000"), OK, ".* 2.0 CPUs", ""},
		"CPUs without limit":   {cgroupCPU, nil, OK, "no limit", ""},
		"a seccomp filter":     {seccomp, map[string]string{"proc/thread-self/status": "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1"}, Slow, ".*filtered.*", ".*SystemCallFilter.*"},
		"no seccomp filter":    {seccomp, map[string]string{"proc/thread-self/status": "Seccomp:\t0"}, OK, "no filter.*", ""},
		"no tun":               {tunDevice, nil, Missing, "/dev/net/tun does not exist.*", "modprobe tun"},
		"tun for its owner":    {tunDevice, map[string]string{"dev/net/tun": ""}, OK, "mode 0644: this user may open it, not every user", ""},
		"mptcp":                {mptcp, map[string]string{"proc/sys/net/mptcp/enabled": "1"}, OK, "on: .*", ""},
		"no mptcp":             {mptcp, nil, OK, "off: .*", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.check(machineOf(t, c.files))
			qt.Check(t, qt.Equals(r.State, c.state), qt.Commentf("%+v", r))
			qt.Check(t, qt.Matches(r.What, c.what))
			qt.Check(t, qt.Matches(r.Remedy, c.remedy))
		})
	}
}

func TestNoSuchNIC(t *testing.T) {
	_, err := Examine(t.Context(), Options{NIC: "nosuchnic0"})
	qt.Check(t, qt.ErrorMatches(err, "interface nosuchnic0: no such interface.*`ip link`.*"))
}

// TestPageKnowsTheLines: docs/troubleshooting.md explains each line, and no other.
func TestPageKnowsTheLines(t *testing.T) {
	page, err := os.ReadFile("../../docs/troubleshooting.md")
	qt.Assert(t, qt.IsNil(err))
	_, table, found := strings.Cut(string(page), "## The lines of doctor")
	qt.Assert(t, qt.IsTrue(found))
	var explained, made []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1) {
		explained = append(explained, row[1])
	}
	for _, checks := range [][]check{machineChecks, nicChecks, poolChecks} {
		for _, c := range checks {
			made = append(made, c.name)
		}
	}
	qt.Check(t, qt.DeepEquals(explained, made))
}
