package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pastenet/paste/internal/doctor"
)

func newDoctorCmd(e env) *cobra.Command {
	var o doctor.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Show what this machine can do, what holds it back, and what mends it",
		Long: `Look at kernel, privileges, limits, memory, network and, if they are named, a NIC
and a pool, and say of each what was found, in one line:

  ok       as it should be
  slow     it works, with something lost; the line below says what helps
  missing  something does not work

Nothing is changed. Whether a server may do something depends on its user and its
control group: run this as that server would run.

The exit code is 1 if anything is missing, and 0 if not.`,
		Example: `  pastectl doctor
  pastectl doctor --nic eth0 --pool /dev/shm/log
  nsenter --net=/run/netns/NAME pastectl doctor --nic eth0 --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.BPFFS = bpffsPath()
			results, err := doctor.Examine(cmd.Context(), o)
			if err != nil {
				return fmt.Errorf("doctor: %w", err)
			}
			if asJSON {
				err = e.printJSON(results)
			} else {
				err = printDoctor(e, results)
			}
			if err != nil {
				return err
			}
			return missingError(results)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.NIC, "nic", "", "interface to look at")
	f.StringVar(&o.Pool, "pool", "", "pool to look at, or where one is to be")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printDoctor(e env, results []doctor.Result) error {
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.State, r.Name, r.What)
		if r.State != doctor.OK && r.Remedy != "" {
			fmt.Fprintf(w, "\t\t-> %s\n", r.Remedy)
		}
	}
	return w.Flush()
}

// missingError names what does not work.
func missingError(results []doctor.Result) error {
	var names []string
	for _, r := range results {
		if r.State == doctor.Missing {
			names = append(names, r.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fmt.Errorf("doctor: something does not work here: %s", strings.Join(names, ", "))
}
