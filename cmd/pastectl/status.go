package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pasteapi"
	"github.com/spf13/cobra"
)

func newStatusCmd(e env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [NIC]",
		Short: "Show attached interfaces and the applications that use them",
		Long: `Show the interfaces of this network namespace that "pastectl attach" attached:
mode (native or generic), RX queues, MTU and how many packets got which decision;
and the applications that receive through rings, with an interface or without:
process, zero-copy or copy for each queue, pool, connections, counters, sizes of
batches and times of commits.

With an interface, only that one, and an error if it is neither attached nor in
use. An application answers root and its own user only, and root is told whose an
application is that is not root's.

For another network namespace:

  nsenter --net=/run/netns/NAME pastectl status`,
		Example: `  pastectl status
  pastectl status eth0 --json`,
		Args: maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var nic string
			if len(args) == 1 {
				nic = args[0]
			}
			st, err := readStatus(cmd, nic)
			if err != nil {
				return withHint(fmt.Errorf("status: %w", err), nic)
			}
			if asJSON {
				return e.printJSON(st)
			}
			st.print(e.stdout)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// status is what `status --json` prints.
type status struct {
	Attached []attachedNIC       `json:"attached"`
	Ports    []pasteapi.LivePort `json:"ports"`
	// Warnings say what could not be found out.
	Warnings []string `json:"warnings,omitempty"`
}

type attachedNIC struct {
	bpf.SteerInfo
	SteeredPorts []uint16          `json:"steered_ports"`
	Counters     map[string]uint64 `json:"counters,omitempty"`
}

// readStatus reads the status of one interface, or of all for "".
func readStatus(cmd *cobra.Command, nic string) (*status, error) {
	st := &status{Attached: []attachedNIC{}, Ports: []pasteapi.LivePort{}}
	ports, perr := pasteapi.ListPorts(cmd.Context())
	for _, p := range ports {
		if nic == "" || nic == p.NIC {
			st.Ports = append(st.Ports, p)
		}
	}
	if perr != nil {
		st.Warnings = append(st.Warnings, sentence(perr))
	}

	infos, err := bpf.ListSteer(cmd.Context(), bpffsPath())
	if errors.Is(err, bpf.ErrNoPrivilege) && len(st.Ports) > 0 {
		st.Warnings = append(st.Warnings, sentence(err))
	} else if err != nil {
		return nil, err
	}
	for _, info := range infos {
		if nic != "" && nic != info.NIC {
			continue
		}
		a := attachedNIC{SteerInfo: info, SteeredPorts: []uint16{}}
		if !info.Stale && info.Replaced == "" {
			if err := a.read(cmd.Context()); err != nil && !errors.Is(err, bpf.ErrNotAttached) && !errors.Is(err, bpf.ErrNoSuchNIC) {
				return nil, err
			} else if err != nil {
				continue // detached meanwhile
			}
		}
		st.Attached = append(st.Attached, a)
	}
	if nic != "" && len(st.Attached) == 0 && len(st.Ports) == 0 {
		// This is the sentence for either of: no such interface, not attached,
		// attached by something else.
		s, err := bpf.OpenSteer(cmd.Context(), bpffsPath(), nic)
		if err != nil {
			return nil, err
		}
		s.Close()
	}
	return st, nil
}

func (a *attachedNIC) read(ctx context.Context) error {
	s, err := bpf.OpenSteer(ctx, bpffsPath(), a.NIC)
	if err != nil {
		return err
	}
	defer s.Close()
	if a.Counters, err = s.Counters(); err != nil {
		return err
	}
	ports, err := s.Ports()
	a.SteeredPorts = append(a.SteeredPorts, ports...)
	return err
}

// print shows the status. What processes of other users say of themselves is
// among it, so that control characters are left out.
func (st *status) print(out io.Writer) {
	w := new(bytes.Buffer)
	defer func() {
		io.WriteString(out, strings.Map(func(r rune) rune {
			if r != '\n' && !unicode.IsPrint(r) {
				return '?'
			}
			return r
		}, w.String()))
	}()
	if len(st.Attached) == 0 && len(st.Ports) == 0 {
		fmt.Fprintln(w, "no interface of this network namespace is attached or in use")
	}
	for _, a := range st.Attached {
		if a.Stale {
			fmt.Fprintf(w, "%s: the interface is gone; `pastectl detach %s` removes what is left\n", a.NIC, a.NIC)
			continue
		}
		if a.Replaced != "" {
			fmt.Fprintf(w, "%s: nothing is steered: %s was put into the link of the steering program; `pastectl detach %s` removes both\n", a.NIC, a.Replaced, a.NIC)
			continue
		}
		fmt.Fprintf(w, "%s: attached until detach, %s mode, %s, MTU %d\n", a.NIC, a.Mode, queues(a.Queues), a.MTU)
		if len(a.SteeredPorts) > 0 {
			fmt.Fprintf(w, "  steered ports  %s\n", join(a.SteeredPorts))
		}
		// The counters of a NIC in use are among its application's.
		if !slices.ContainsFunc(st.Ports, func(p pasteapi.LivePort) bool { return p.NIC == a.NIC }) {
			printCounters(w, "steering", a.Counters)
		}
	}
	for _, p := range st.Ports {
		pinned := slices.ContainsFunc(st.Attached, func(a attachedNIC) bool { return a.NIC == p.NIC && !a.Stale && a.Replaced == "" })
		printPort(w, p, pinned)
	}
	for _, warning := range st.Warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
}

// printPort prints what an application says of its Port; pinned is what is true
// of the NIC now, for it may have been detached since the application began.
func printPort(w io.Writer, p pasteapi.LivePort, pinned bool) {
	if p.NIC == "" {
		fmt.Fprintf(w, "process %d: no interface", p.PID)
	} else {
		fmt.Fprintf(w, "%s: in use by process %d", p.NIC, p.PID)
	}
	if p.UID != 0 {
		fmt.Fprintf(w, " of user %d, who is not root: what follows is as true as that user is honest", p.UID)
	}
	fmt.Fprintln(w)
	s := &p.Status // of another version, maybe: what it does not tell is zero
	if s.App != nil {
		fmt.Fprintf(w, "  application    %s %s\n", s.App.Name, s.App.URL)
	}
	switch {
	case s.Lost != "":
		fmt.Fprintf(w, "  mode           none, %s: all payload is copied until the interface is back\n", s.Lost)
	case s.Attached == pasteapi.NotAttached:
	case s.Attached == pasteapi.AttachedProcess:
		fmt.Fprintf(w, "  mode           %s, attached for the life of the process\n", s.XDP)
	case pinned:
		fmt.Fprintf(w, "  mode           %s, attached until detach\n", s.XDP)
	default:
		fmt.Fprintln(w, "  mode           detached meanwhile: everything arrives by the kernel's ordinary path")
	}
	way := "not steered"
	if s.Receive.Steered {
		way = "steered"
	}
	if s.Receive.Why != "" {
		way += ": " + s.Receive.Why
	}
	fmt.Fprintf(w, "  receive        %s\n", way)
	if s.Send.Why != "" {
		fmt.Fprintf(w, "  send           %s: %s\n", s.Send.Used, s.Send.Why)
	}
	if s.NAPIPoll != 0 {
		fmt.Fprintf(w, "  napi poll      %v, when a ring goes to sleep\n", s.NAPIPoll)
	}
	if len(s.Ports) > 0 {
		fmt.Fprintf(w, "  ports          %s\n", join(s.Ports))
	}
	for _, q := range s.Queues {
		fmt.Fprintf(w, "  queue %-8d %s\n", q.Queue, q.Mode)
	}
	if s.Pool.Frames > 0 {
		fmt.Fprintf(w, "  pool           %s (%s), %d of %d frames of %d bytes free\n",
			s.Pool.Path, s.Pool.Backing, s.Pool.Free, s.Pool.Frames, s.Pool.FrameSize)
		if s.Pool.LogEntries > 0 {
			fmt.Fprintf(w, "  log            %d of %d entries in use\n", s.Pool.LogUsed, s.Pool.LogEntries)
		}
		fmt.Fprintf(w, "  durability     %s\n", s.Pool.Durability)
	}
	fmt.Fprintf(w, "  connections    %d\n", s.Stats.Conns)
	if s.App != nil {
		printCounters(w, s.App.Name, s.App.Counters)
	}
	if b := s.Batches; b.Count > 0 {
		fmt.Fprintf(w, "  batches        %d, of %.1f slots on average, p99 %d\n", b.Count, b.Mean(), b.Quantile(0.99))
	}
	if c := s.Commits; c.Count > 0 {
		fmt.Fprintf(w, "  commits        %d, in %v on average, p99 %v\n", c.Count,
			time.Duration(c.Mean()).Round(time.Microsecond), time.Duration(c.Quantile(0.99)).Round(time.Microsecond))
	}
	printCounters(w, "rings", ringCounters(s.Stats))
	printCounters(w, "tickets", s.Tickets)
	printCounters(w, "steering", s.Steer)
}

// ringCounters names the counters as their JSON does.
func ringCounters(s pasteapi.Stats) map[string]uint64 {
	counters := make(map[string]uint64)
	if data, err := json.Marshal(s); err == nil {
		json.Unmarshal(data, &counters)
	}
	delete(counters, "conns")
	return counters
}

// printCounters prints those that have counted anything.
func printCounters(w io.Writer, title string, counters map[string]uint64) {
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		if counters[name] != 0 {
			fmt.Fprintf(w, "  %-14s %-16s %d\n", title, name, counters[name])
			title = ""
		}
	}
}

func join[T any](values []T) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = fmt.Sprint(v)
	}
	return strings.Join(words, ", ")
}
