package main

import (
	"errors"
	"fmt"

	"github.com/pastenet/paste/bpf"
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
			user := portPID(cmd.Context(), nic)
			err := bpf.DetachSteer(cmd.Context(), bpffsPath(), nic)
			if errors.Is(err, bpf.ErrNotAttached) && user != 0 {
				return fmt.Errorf("detach: interface %s: %w by `pastectl attach`: process %d attached it for its own lifetime; stop that process", nic, bpf.ErrNotAttached, user)
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
