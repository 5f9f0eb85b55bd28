package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/pastenet/paste/xsk"
)

// netdev returns the NIC's directory in sysfs, "" where the sysfs that is mounted is of
// another network namespace.
func (m *machine) netdev() string {
	dir := "sys/class/net/" + m.opts.NIC
	if m.value(dir+"/ifindex") != strconv.Itoa(m.link.Attrs().Index) {
		return ""
	}
	return dir
}

// queues compares the NIC's receive queues with the CPUs: each is received by one.
func queues(m *machine) Result {
	cpus := runtime.NumCPU()
	if m.eth == nil {
		return ok("not examined")
	}
	ch, err := m.eth.GetChannels(m.opts.NIC)
	if err != nil {
		return ok("%d: the driver does not tell of its channels", m.link.Attrs().NumRxQueues)
	}
	have, most := ch.RxCount+ch.CombinedCount, ch.MaxRx+ch.MaxCombined
	if want := min(int(most), cpus); int(have) < want {
		kind := "combined"
		if ch.MaxCombined == 0 {
			kind = "rx"
		}
		return slow(fmt.Sprintf("ethtool -L %s %s %d, and as many --rings", m.opts.NIC, kind, want),
			"RX queues: %d for %d CPUs, and the NIC could have %d", have, cpus, most)
	}
	return ok("RX queues: %d for %d CPUs; --rings up to %d make use of them", have, cpus, have)
}

// interrupts says which CPUs the NIC's interrupts go to.
func interrupts(m *machine) Result {
	dir := m.netdev()
	if dir == "" {
		return ok("not examined: the /sys that is mounted here is of another network namespace")
	}
	irqs, _ := filepath.Glob(m.root + dir + "/device/msi_irqs/*")
	if more, _ := filepath.Glob(m.root + dir + "/device/../msi_irqs/*"); len(irqs) == 0 {
		irqs = more // virtio's are its PCI device's
	}
	if len(irqs) == 0 {
		return ok("%s has none of its own: what is sent to it is received on the sender's CPU, or by a NAPI thread", m.driverName())
	}
	cpus := map[string]int{}
	for _, irq := range irqs {
		if on := m.value("proc/irq/" + filepath.Base(irq) + "/effective_affinity_list"); on != "" {
			cpus[on]++
		}
	}
	rx, _ := filepath.Glob(m.root + dir + "/queues/rx-*")
	if len(cpus) == 1 && len(rx) > 1 && runtime.NumCPU() > 1 {
		for on := range cpus {
			return slow(fmt.Sprintf("echo N > /proc/irq/%s/smp_affinity_list for each queue, or run irqbalance", filepath.Base(irqs[0])),
				"all %d interrupts go to CPU %s, for %d queues", len(irqs), on, len(rx))
		}
	}
	return ok("%d interrupts, on %d of %d CPUs", len(irqs), max(len(cpus), 1), runtime.NumCPU())
}

// napis says by what the kernel receives, and where.
func napis(m *machine) Result {
	n, err := xsk.NAPIs(m.link.Attrs().Index)
	if err != nil {
		return slow("boot Linux 6.8 or newer", "%v", err)
	}
	threaded := "in softirq"
	if dir := m.netdev(); dir != "" && m.value(dir+"/threaded") == "1" {
		threaded = "by threads, which a ring cannot poll (echo 0 > /sys/class/net/" + m.opts.NIC + "/threaded)"
	}
	if n == 0 {
		return ok("%s has no NAPI instance: there is nothing for --napi-poll", m.driverName())
	}
	return ok("%d instances, run %s", n, threaded)
}

// rxOffloads are those by which the kernel receives large pieces, or checks less.
var rxOffloads = []string{"rx-gro", "rx-checksum"}

func offloads(m *machine) Result {
	f, err := m.offloadsOf()
	if err != nil {
		return ok("not examined: %v", err)
	}
	if f["rx-lro"] {
		return slow(fmt.Sprintf("ethtool -K %s lro off", m.opts.NIC), "LRO is on: most drivers refuse XDP with it, and merged segments do not fit frames")
	}
	var off []string
	for _, name := range rxOffloads {
		if on, known := f[name]; known && !on {
			off = append(off, name)
		}
	}
	if len(off) > 0 {
		return slow(fmt.Sprintf("ethtool -K %s %s on", m.opts.NIC, strings.Join(off, " on ")), "%s off: what is read costs more", strings.Join(off, " and "))
	}
	return ok("GRO and checksums are on, LRO is off")
}

// rxVLAN matters where there are VLANs: a tag that the NIC has taken off is nowhere in
// the frame.
func rxVLAN(m *machine) Result {
	f, err := m.offloadsOf()
	if err != nil {
		return ok("not examined: %v", err)
	}
	on := f["rx-vlan-hw-parse"]
	vlans := m.vlans()
	switch {
	case !on:
		return ok("off: frames keep their tag, and may be steered")
	case len(vlans) == 0:
		return ok("on, and no VLAN device is on %s", m.opts.NIC)
	}
	return slow(fmt.Sprintf("ethtool -K %s rxvlan off", m.opts.NIC),
		"on: the NIC takes the tag off, so that what arrives on %s is not steered", strings.Join(vlans, ", "))
}

func (m *machine) offloadsOf() (map[string]bool, error) {
	if m.eth == nil {
		return nil, os.ErrNotExist
	}
	return m.eth.Features(m.opts.NIC)
}
