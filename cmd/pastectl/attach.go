package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pasteapi"
	"github.com/spf13/cobra"
)

func newAttachCmd(e env) *cobra.Command {
	var mode bpf.XDPMode
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "attach NIC",
		Short: "Attach the steering program to a network interface, until detach",
		Long: `Attach the XDP program that steers TCP segments into packet buffers to a network
interface. It stays there after this command, and after applications end or
crash, until "pastectl detach". While no application steers a port everything
passes: other traffic on the interface is not disturbed.

Attaching an attached interface again changes nothing. An application attaches
by itself, for its own lifetime, an interface that is not attached.

The state is pinned below /sys/fs/bpf; a bpffs is mounted there if there is
none, and unmounted by the last detach. For an interface in a network namespace,
enter only that one and keep the mounts:

  nsenter --net=/run/netns/NAME pastectl attach NIC`,
		Example: `  pastectl attach eth0
  pastectl attach eth0 --mode generic --json`,
		Args: exactArgs("NIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return attach(cmd.Context(), e, args[0], mode, asJSON)
		},
	}
	cmd.Flags().Var(xdpModeFlag(&mode), "mode", "where the program runs: native (in the driver), generic (in the stack, any driver), or auto: native if the driver can")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// attachResult is what `attach --json` prints.
type attachResult struct {
	bpf.SteerInfo
	AlreadyAttached bool `json:"already_attached"`
}

func attach(ctx context.Context, e env, nic string, mode bpf.XDPMode, asJSON bool) error {
	// Only to know what to say: attaching is idempotent by itself.
	var r attachResult
	if s, err := bpf.OpenSteer(ctx, bpffsPath(), nic); err == nil {
		r.AlreadyAttached = true
		s.Close()
	}
	s, err := bpf.AttachSteer(ctx, bpf.SteerOptions{NIC: nic, Mode: mode, Pin: true, BPFFS: bpffsPath()})
	if pid := portPID(ctx, nic); errors.Is(err, bpf.ErrAttachedByOther) && pid != 0 {
		return fmt.Errorf("attach: interface %s: %w: process %d attached it for its own lifetime; stop that process first", nic, bpf.ErrAttachedByOther, pid)
	}
	if err != nil {
		return withHint(fmt.Errorf("attach: %w", err), nic)
	}
	r.SteerInfo = s.Info()
	if err := s.Close(); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if asJSON {
		return e.printJSON(r)
	}
	how := "attached"
	if r.AlreadyAttached {
		how = "already attached"
	}
	fmt.Fprintf(e.stdout, "%s: %s in %s mode, %s, MTU %d\n", r.NIC, how, r.Mode, queues(r.Queues), r.MTU)
	if r.Fallback != "" {
		fmt.Fprintf(e.stdout, "%s: not native: %s\n", r.NIC, r.Fallback)
	}
	return nil
}

func queues(n int) string {
	if n == 1 {
		return "1 RX queue"
	}
	return fmt.Sprintf("%d RX queues", n)
}

// portPID returns the process that has a Port open on nic, 0 if none says so.
func portPID(ctx context.Context, nic string) int {
	ports, _ := pasteapi.ListPorts(ctx) // those that answer are enough
	for _, p := range ports {
		if p.NIC == nic {
			return p.PID
		}
	}
	return 0
}
