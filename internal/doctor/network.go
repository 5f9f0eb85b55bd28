package doctor

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

func mptcp(m *machine) Result {
	if m.value("proc/sys/net/mptcp/enabled") != "1" {
		return ok("off: every connection is plain TCP")
	}
	return ok("on: what a peer with MPTCP brings to a listener that offers it cannot be registered. pastectl's offer none; Go's do, but for ListenConfig.SetMultipathTCP(false)")
}

// firewall looks for rules that match a frame's source address: that of what came in by a
// ring is not the sender's any more (docs/architecture.md). All other rules see what
// they would see without a ring.
func firewall(m *machine) Result {
	var rules []string
	var unknown []string
	for _, t := range []struct {
		args []string
		used bool // by what the kernel says
		mark string
	}{
		{[]string{"nft", "list", "ruleset"}, true, "ether saddr"},
		{[]string{"iptables-legacy-save"}, m.value("proc/thread-self/net/ip_tables_names") != "", "--mac-source"},
		{[]string{"ip6tables-legacy-save"}, m.value("proc/thread-self/net/ip6_tables_names") != "", "--mac-source"},
	} {
		if !t.used {
			continue
		}
		out, err := exec.CommandContext(m.ctx, t.args[0], t.args[1:]...).Output()
		if err != nil {
			unknown = append(unknown, fmt.Sprintf("%s: %v", t.args[0], explain(err)))
			continue
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, t.mark) {
				rules = append(rules, strings.TrimSpace(line))
			}
		}
	}
	switch {
	case len(rules) > 0:
		return slow("match addresses or the interface instead",
			"%d rules match a source MAC address, and that of what was steered is another: %s", len(rules), strings.Join(rules, " | "))
	case len(unknown) > 0:
		return slow("apt install nftables, and run as root", "not examined: %s", strings.Join(unknown, "; "))
	}
	return ok("no rule matches a source MAC address")
}

// explain is what a program said that failed.
func explain(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		line, _, _ := strings.Cut(string(exit.Stderr), "\n")
		return strings.TrimSpace(line)
	}
	return err.Error()
}
