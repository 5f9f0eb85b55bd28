// Command pastebench measures PASTE against servers that need libraries which
// nobody else wants in a module that imports PASTE: other databases and network
// frameworks. What compares with plain sockets is `pastectl bench`.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/pastenet/paste/internal/loadgen"
	"github.com/spf13/cobra"
)

// streams are where a command writes.
type streams struct{ stdout, stderr io.Writer }

// Exit codes, the same as pastectl's.
const (
	exitError = 1 // the command failed
	exitUsage = 2 // the command line is wrong
)

// errUsage marks a mistake in the command line.
var errUsage = errors.New("wrong usage")

func main() { os.Exit(run(os.Args[1:], streams{os.Stdout, os.Stderr})) }

// run executes one command line and returns the exit code.
func run(args []string, s streams) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:           "pastebench",
		Short:         "Measure PASTE against other databases and frameworks on this machine",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetArgs(args)
	root.SetOut(s.stdout)
	root.SetErr(s.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return errors.Join(errUsage, err) })
	root.CompletionOptions.HiddenDefaultCmd = true
	for _, w := range []loadgen.Workload{loadgen.RPC, loadgen.WAL, loadgen.Echo, loadgen.Sink} {
		root.AddCommand(newWorkloadCmd(s, w))
	}
	root.AddCommand(newMatrixCmd(s), newPlotCmd(), newServerCmd(s), newKVCmd(s), newKVServerCmd(s))
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(s.stderr, "pastebench: %v; see `%s --help`\n", usageText(err), cmd.CommandPath())
		return exitUsage
	}
	fmt.Fprintln(s.stderr, "pastebench:", err)
	return exitError
}

// usageText is what a mistake in the command line is, without its mark.
func usageText(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()[1]
	}
	return err
}

func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasSubCommands():
		return errors.Join(errUsage, fmt.Errorf("unknown command %q", args[0]))
	}
	return errors.Join(errUsage, fmt.Errorf("unexpected argument %q", args[0]))
}

// findPastectl returns the program to measure: path if the user named one, else
// the one beside this program, else the first in PATH.
func findPastectl(path string) (string, error) {
	if path == "" {
		if self, err := os.Executable(); err == nil {
			if beside, err := exec.LookPath(filepath.Join(filepath.Dir(self), "pastectl")); err == nil {
				return beside, nil
			}
		}
		path = "pastectl"
	}
	found, err := exec.LookPath(path)
	if err == nil {
		found, err = filepath.Abs(found)
	}
	if err != nil {
		return "", fmt.Errorf("find pastectl: %w; build it (go build -o /usr/local/bin ./cmd/pastectl), or name it by --pastectl", err)
	}
	return found, nil
}
