package pasteapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// ListPorts returns the Ports that are open in the calling thread's network namespace,
// in the order of their NICs' names, and then those without a NIC. A Port that did not
// answer is left out; the error, beside the others, says why.
func ListPorts(ctx context.Context) ([]LivePort, error) {
	nics, err := listeners(controlPrefix)
	if err != nil {
		return nil, err
	}
	var ports []LivePort
	var errs []error
	for _, nic := range nics {
		p, err := queryNIC(ctx, nic)
		switch {
		case err == nil:
			ports = append(ports, p)
		case !errors.Is(err, os.ErrNotExist): // it ended meanwhile
			errs = append(errs, err)
		}
	}
	others, err := listUnnamed(ctx)
	return append(ports, others...), errors.Join(errors.Join(errs...), err)
}

// listUnnamed returns the ports without a NIC. One that has got a NIC meanwhile answers
// there.
func listUnnamed(ctx context.Context) ([]LivePort, error) {
	names, err := listeners(portPrefix)
	if err != nil {
		return nil, err
	}
	var ports []LivePort
	var errs []error
	for _, name := range names {
		p, err := queryPort(ctx, portPrefix+name, "port "+name)
		switch {
		case err == nil && p.Status.NIC == "":
			ports = append(ports, p)
		case err != nil && !errors.Is(err, os.ErrNotExist): // it ended meanwhile
			errs = append(errs, err)
		}
	}
	return ports, errors.Join(errs...)
}

// soAcceptCon marks a listener in the flags of /proc/net/unix (__SO_ACCEPTCON,
// include/linux/net.h).
const soAcceptCon = "00010000"

// listeners reads from the kernel's table what listens at addresses with a prefix, and
// returns the rest of each: columns Num, RefCount, Protocol, Flags, Type, St, Inode, Path.
func listeners(prefix string) ([]string, error) {
	f, err := os.Open("/proc/thread-self/net/unix")
	if err != nil {
		return nil, fmt.Errorf("list applications: %w", err)
	}
	defer f.Close()
	var nics []string
	for lines := bufio.NewScanner(f); ; {
		if !lines.Scan() {
			if err := lines.Err(); err != nil {
				return nil, fmt.Errorf("list applications: %w", err)
			}
			slices.Sort(nics)
			return slices.Compact(nics), nil
		}
		fields := strings.Fields(lines.Text())
		if len(fields) != 8 || fields[3] != soAcceptCon {
			continue
		}
		if nic, ok := strings.CutPrefix(fields[7], prefix); ok && nic != "" {
			nics = append(nics, nic)
		}
	}
}
