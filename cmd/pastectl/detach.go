package main

import (
	"fmt"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pasteapi"
	"github.com/spf13/cobra"
)

func newDetachCmd(e env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "detach NIC",
		Short: "Take the steering program off a network interface",
		Long: `Remove what "pastectl attach" put on a network interface: the XDP program, its
maps and their pins, and with the last interface the bpffs if attach mounted it.
It also removes what is left of an interface that does not exist any more.

An application that uses the interface goes on working; its connections then
receive through the kernel's ordinary path. An interface that an application
attached for its own lifetime is detached by stopping the application.`,
		Example: `  pastectl detach eth0`,
		Args:    exactArgs("NIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			nic := args[0]
			// The answer is only a courtesy; without one there is no user.
			var user int
			if ports, err := pasteapi.ListPorts(cmd.Context()); err == nil || len(ports) > 0 {
				for _, p := range ports {
					if p.NIC == nic {
						user = p.PID
					}
				}
			}
			err := bpf.DetachSteer(bpffsPath(), nic)
			if notAttached(err) && user != 0 {
				return fmt.Errorf("detach: interface %s: %w for good: process %d attached it for its own lifetime; stop that process", nic, bpf.ErrNotAttached, user)
			}
			if err != nil {
				return fmt.Errorf("detach: %w", err)
			}
			if asJSON {
				return e.printJSON(detachResult{NIC: nic, UserPID: user})
			}
			fmt.Fprintf(e.stdout, "%s: detached\n", nic)
			if user != 0 {
				fmt.Fprintf(e.stdout, "%s: process %d goes on over the kernel's ordinary path\n", nic, user)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// detachResult is what `detach --json` prints.
type detachResult struct {
	NIC     string `json:"nic"`
	UserPID int    `json:"user_pid,omitempty"` // application that had the interface
}
