// Package doctor looks at a machine, line by line: what it can do for a port, what
// holds it back, and the command that mends it. It changes nothing.
//
// A check asks the package that does the thing, where there is one (bpf, xsk, uring,
// pasteapi): what is said here is what a port will find.
package doctor

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/bpf"
)

// State is what a check has found.
type State string

const (
	OK      State = "ok"      // as it should be
	Slow    State = "slow"    // it works, with something lost: speed, or a feature
	Missing State = "missing" // something does not work
)

// Result is what one check says.
type Result struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	What   string `json:"what"`             // one sentence
	Remedy string `json:"remedy,omitempty"` // a command, or what else mends it
}

func ok(format string, args ...any) Result {
	return Result{State: OK, What: fmt.Sprintf(format, args...)}
}

func slow(remedy, format string, args ...any) Result {
	return Result{State: Slow, What: fmt.Sprintf(format, args...), Remedy: remedy}
}

func missing(remedy, format string, args ...any) Result {
	return Result{State: Missing, What: fmt.Sprintf(format, args...), Remedy: remedy}
}

// failed is the result of an error that may have its remedy behind a semicolon, as the
// errors of this project do.
func failed(state State, err error) Result {
	what, remedy, _ := strings.Cut(err.Error(), "; ")
	return Result{State: state, What: what, Remedy: remedy}
}

// Options say what to look at.
type Options struct {
	NIC   string // interface of the calling thread's network namespace; "": none
	Pool  string // path of a pool, or of one to be; "": none
	BPFFS string // where NICs are pinned; "": bpf.DefaultBPFFS
}

// defaultPool is the size that is reckoned with while no pool is named, bytes: what
// servers make.
const defaultPool = 1 << 30

// machine is what several checks look at.
type machine struct {
	ctx      context.Context
	opts     Options
	pool     int64 // bytes
	link     netlink.Link
	eth      *ethtool.Ethtool
	features []bpf.Feature
	root     string // of /proc and /sys; tests have others
}

// check is one line of the examination.
type check struct {
	name string
	run  func(*machine) Result
}

// Of every machine, of a NIC, and of a pool.
var (
	machineChecks = []check{
		{"kernel", kernelVersion},
		{"af_xdp", feature("AF_XDP")},
		{"xdp", feature("XDP (")},
		{"sockmap", feature("sockmap")},
		{"btf", feature("bpf_cast_to_kern_ctx")},
		{"tcx", feature("TCX")},
		{"io_uring", ioURing},
		{"napi poll", napiPoll},
		{"capabilities", capabilities},
		{"seccomp", seccomp},
		{"/dev/net/tun", tunDevice},
		{"memlock", memlock},
		{"nofile", nofile},
		{"huge pages", hugePages},
		{"dax", daxDevices},
		{"cgroup memory", cgroupMemory},
		{"cgroup cpu", cgroupCPU},
		{"mptcp", mptcp},
		{"firewall", firewall},
		{"nics", nics},
	}
	nicChecks = []check{
		{"link", linkState},
		{"driver", driver},
		{"xdp program", xdpProgram},
		{"ingress", ingress},
		{"queues", queues},
		{"interrupts", interrupts},
		{"napi", napis},
		{"mtu", mtu},
		{"offloads", offloads},
		{"rxvlan", rxVLAN},
		{"rp_filter", rpFilter},
	}
	poolChecks = []check{{"pool", poolBacking}}
)

// Examine makes all checks, each of which is one line. It fails only if there is no such
// NIC, or ctx has ended.
func Examine(ctx context.Context, o Options) ([]Result, error) {
	m := &machine{ctx: ctx, opts: o, pool: defaultPool, features: bpf.Features(), root: "/"}
	if st, err := os.Stat(o.Pool); err == nil && st.Mode().IsRegular() {
		m.pool = st.Size()
	}
	checks := append([]check(nil), machineChecks...)
	if o.NIC != "" {
		if err := m.findNIC(); err != nil {
			return nil, err
		}
		if m.eth != nil {
			defer m.eth.Close()
		}
		checks = append(checks, nicChecks...)
	}
	if o.Pool != "" {
		checks = append(checks, poolChecks...)
	}
	results := make([]Result, 0, len(checks))
	for _, c := range checks {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		r := c.run(m)
		r.Name = c.name
		results = append(results, r)
	}
	return results, nil
}

func (m *machine) findNIC() (err error) {
	m.link, err = netlink.LinkByName(m.opts.NIC)
	if err != nil {
		return fmt.Errorf("interface %s: %w in this network namespace (%w); `ip link` lists those there are", m.opts.NIC, bpf.ErrNoSuchNIC, err)
	}
	// Without it, what asks it says that it could not find out.
	m.eth, _ = ethtool.NewEthtool()
	return nil
}

// read returns a file of /proc or /sys, without the white space around it.
func (m *machine) read(path string) (string, error) {
	b, err := os.ReadFile(m.root + path)
	return strings.TrimSpace(string(b)), err
}

// value is read, with "" where there is no such file.
func (m *machine) value(path string) string {
	s, _ := m.read(path)
	return s
}

// haveCap says whether this process has a capability (unix.CAP_…).
func haveCap(c uint) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&hdr, &data[0])
	return err == nil && data[c/32].Effective&(1<<(c%32)) != 0
}
