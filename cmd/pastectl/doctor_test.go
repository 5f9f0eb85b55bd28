package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/go-quicktest/qt"
	"github.com/vishvananda/netlink"

	"github.com/pastenet/paste/internal/doctor"
	"github.com/pastenet/paste/internal/netlab/netlabtest"
	"github.com/pastenet/paste/internal/testkernel"
	"github.com/pastenet/paste/internal/testwait"
)

// asPastectl has this test binary be pastectl, for a test that needs a process of its
// own: with fewer capabilities, or lower limits.
const asPastectl = "PASTECTL_TEST_RUN"

func init() {
	if os.Getenv(asPastectl) != "" {
		os.Exit(run(os.Args[1:], env{stdout: os.Stdout, stderr: os.Stderr}))
	}
}

// examine runs doctor in this process.
func examine(t *testing.T, args ...string) (code int, lines map[string]doctor.Result) {
	t.Helper()
	var results []doctor.Result
	code = mustJSON(t, &results, append([]string{"doctor", "--json"}, args...)...)
	return code, byName(t, results)
}

func byName(t *testing.T, results []doctor.Result) map[string]doctor.Result {
	t.Helper()
	lines := map[string]doctor.Result{}
	for _, r := range results {
		qt.Check(t, qt.Not(qt.Equals(r.What, "")), qt.Commentf("%s", r.Name))
		lines[r.Name] = r
	}
	qt.Check(t, qt.HasLen(lines, len(results)), qt.Commentf("two lines of one name"))
	return lines
}

func checkLine(t *testing.T, r doctor.Result, state doctor.State, what, remedy string) {
	t.Helper()
	qt.Check(t, qt.Equals(r.State, state), qt.Commentf("%+v", r))
	qt.Check(t, qt.StringContains(r.What, what))
	qt.Check(t, qt.StringContains(r.Remedy, remedy))
}

func TestDoctorOfANIC(t *testing.T) {
	nicInNetns(t)
	code, lines := examine(t, "--nic", "at0")
	qt.Check(t, qt.Equals(code, exitError))
	checkLine(t, lines["link"], doctor.Missing, "at0 is down", "ip link set at0 up")

	for _, nic := range []string{"at0", "at1"} {
		l, err := netlink.LinkByName(nic)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(netlink.LinkSetUp(l)))
	}
	testwait.Until(t, "the link", func() bool { // the kernel says so a little later
		l, err := netlink.LinkByName("at0")
		return err == nil && l.Attrs().OperState == netlink.OperUp
	})
	rpFilter(t, "all", "0") // what a new namespace has is up to the machine
	rpFilter(t, "at0", "0")
	code, lines = examine(t, "--nic", "at0", "--pool", filepath.Join("/dev/shm", "no-pool-yet"))
	qt.Check(t, qt.Equals(code, exitOK), qt.Commentf("%+v", lines))
	for _, name := range []string{"kernel", "af_xdp", "xdp", "sockmap", "btf", "tcx", "capabilities", "xdp program", "ingress", "link", "mtu", "rxvlan", "rp_filter", "firewall", "pool"} {
		checkLine(t, lines[name], doctor.OK, "", "")
	}
	checkLine(t, lines["driver"], doctor.Slow, "veth has native XDP, and no AF_XDP zero-copy", "")

	code, stdout, stderr := pastectl("doctor", "--nic", "at0")
	qt.Check(t, qt.Equals(code, exitOK))
	qt.Check(t, qt.Equals(stderr, ""))
	qt.Check(t, qt.StringContains(stdout, "slow  driver"))
	qt.Check(t, qt.StringContains(stdout, "-> use a NIC"))
}

func rpFilter(t *testing.T, of, value string) {
	t.Helper()
	qt.Assert(t, qt.IsNil(os.WriteFile("/proc/sys/net/ipv4/conf/"+of+"/rp_filter", []byte(value), 0)))
}

func TestDoctorOfBadSettings(t *testing.T) {
	nicInNetns(t)
	nic, err := netlink.LinkByName("at0")
	qt.Assert(t, qt.IsNil(err))
	line := func(name string) doctor.Result {
		_, lines := examine(t, "--nic", "at0", "--pool", filepath.Join(t.TempDir(), "pool"))
		return lines[name]
	}
	qt.Assert(t, qt.IsNil(netlink.LinkSetMTU(nic, 1800)))
	checkLine(t, line("mtu"), doctor.Slow, "1800", "--frame-size 4096, or ip link set at0 mtu 1774")
	qt.Assert(t, qt.IsNil(netlink.LinkSetMTU(nic, 9000)))
	checkLine(t, line("mtu"), doctor.Slow, "9000", "ip link set at0 mtu 3822")

	rpFilter(t, "all", "0")
	rpFilter(t, "at0", "1")
	checkLine(t, line("rp_filter"), doctor.Slow, "strict", "net.ipv4.conf.at0.rp_filter=2")
	rpFilter(t, "all", "2")
	checkLine(t, line("rp_filter"), doctor.OK, "loose", "")

	rule := exec.Command("nft", "add table inet x; add chain inet x in { type filter hook input priority 0; }; add rule inet x in ether saddr 02:00:00:00:00:01 drop")
	out, err := rule.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
	checkLine(t, line("firewall"), doctor.Slow, "ether saddr 02:00:00:00:00:01", "interface")
}

// program is one that passes everything.
func program(t *testing.T, typ ebpf.ProgramType) *ebpf.Program {
	t.Helper()
	const pass = 2 // XDP_PASS; of TCX, TC_ACT_SHOT: nothing runs here
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: typ, License: "BSD", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()}})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { p.Close() })
	return p
}

func TestDoctorOfOtherPrograms(t *testing.T) {
	nicInNetns(t)
	nic, err := netlink.LinkByName("at0")
	qt.Assert(t, qt.IsNil(err))
	xdp, err := link.AttachXDP(link.XDPOptions{Program: program(t, ebpf.XDP), Interface: nic.Attrs().Index})
	qt.Assert(t, qt.IsNil(err))
	code, lines := examine(t, "--nic", "at0")
	qt.Check(t, qt.Equals(code, exitError))
	checkLine(t, lines["xdp program"], doctor.Missing, "another application", "ip link set at0 xdp off")
	qt.Assert(t, qt.IsNil(xdp.Close()))

	code, _, stderr := pastectl("attach", "at0")
	qt.Assert(t, qt.Equals(code, exitOK), qt.Commentf("%s", stderr))
	_, lines = examine(t, "--nic", "at0")
	checkLine(t, lines["xdp program"], doctor.OK, "attached until detach, native", "")
	code, _, stderr = pastectl("detach", "at0")
	qt.Assert(t, qt.Equals(code, exitOK), qt.Commentf("%s", stderr))

	for range 63 {
		l, err := link.AttachTCX(link.TCXOptions{Program: program(t, ebpf.SchedCLS), Interface: nic.Attrs().Index, Attach: ebpf.AttachTCXIngress})
		qt.Assert(t, qt.IsNil(err))
		defer l.Close()
	}
	_, lines = examine(t, "--nic", "at0")
	checkLine(t, lines["ingress"], doctor.Slow, "63 programs", "bpftool net")
}

func TestDoctorOfVLANs(t *testing.T) {
	testkernel.SkipWithout(t, "VLAN_8021Q")
	nicInNetns(t)
	nic, err := netlink.LinkByName("at0")
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(netlink.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "at0.7", ParentIndex: nic.Attrs().Index}, VlanId: 7})))
	_, lines := examine(t, "--nic", "at0")
	checkLine(t, lines["rxvlan"], doctor.Slow, "at0.7", "ethtool -K at0 rxvlan off")
}

// TestDoctorWithoutPrivilege is about a process without capabilities and with low limits,
// where io_uring is for the privileged only (which takes it from no other test).
func TestDoctorWithoutPrivilege(t *testing.T) {
	netlabtest.RequireRoot(t)
	const disabled = "/proc/sys/kernel/io_uring_disabled"
	before, err := os.ReadFile(disabled)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(os.WriteFile(disabled, []byte("1"), 0)))
	defer func() { qt.Check(t, qt.IsNil(os.WriteFile(disabled, before, 0))) }()

	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	child := func(args ...string) (int, []byte) {
		const limits = `ulimit -l 64 && ulimit -n 1000 && exec setpriv --bounding-set=-all --inh-caps=-all --reuid=65534 --regid=65534 --clear-groups "$0" "$@"`
		// The binary's own directory may be closed to that user: it is opened before.
		f, err := os.Open(self)
		qt.Assert(t, qt.IsNil(err))
		defer f.Close()
		cmd := exec.Command("bash", append([]string{"-c", limits, "/proc/self/fd/3"}, args...)...)
		cmd.ExtraFiles, cmd.Env = []*os.File{f}, append(os.Environ(), asPastectl+"=1")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		t.Log(stderr.String())
		return cmd.ProcessState.ExitCode(), out
	}
	code, out := child("doctor", "--json")
	qt.Check(t, qt.Equals(code, exitError))
	var results []doctor.Result
	qt.Assert(t, qt.IsNil(json.Unmarshal(out, &results)), qt.Commentf("%s", out))
	lines := byName(t, results)
	checkLine(t, lines["capabilities"], doctor.Missing, "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON missing", "AmbientCapabilities")
	checkLine(t, lines["memlock"], doctor.Missing, "64.0 KiB", "ulimit -l unlimited")
	checkLine(t, lines["nofile"], doctor.Slow, "1000", "LimitNOFILE")
	checkLine(t, lines["io_uring"], doctor.Slow, "not available", "sysctl kernel.io_uring_disabled=0")

	code, out = child("version")
	qt.Check(t, qt.Equals(code, exitOK))
	qt.Check(t, qt.StringContains(string(out), "not usable"))
	qt.Check(t, qt.StringContains(string(out), "sysctl kernel.io_uring_disabled=0"))
}
