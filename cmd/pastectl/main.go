// Command pastectl operates PASTE: it attaches network interfaces, shows what
// is attached, makes and reads pool files, serves, and measures.
//
// Nouns read (status, version, pool info), verbs change something (attach,
// detach). Every command that a machine may want to read takes --json.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/pastenet/paste/internal/bytesize"
	"github.com/pastenet/paste/internal/interrupt"
	"github.com/spf13/cobra"
)

// sizeFlag is a number of bytes on the command line.
type sizeFlag = bytesize.Size

// env is what a command knows of its surroundings.
type env struct{ stdout, stderr io.Writer }

// Exit codes.
const (
	exitOK    = 0
	exitError = 1 // the command failed
	exitUsage = 2 // the command line is wrong
)

func main() {
	os.Exit(run(os.Args[1:], env{stdout: os.Stdout, stderr: os.Stderr}))
}

// run executes one command line and returns the exit code. SIGINT, SIGTERM and
// SIGHUP cancel the command's context, and a second one ends the process.
func run(args []string, e env) int {
	ctx, stop := interrupt.Context(context.Background())
	defer stop()

	root := newRootCmd(e)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	// The one mistake that cobra reports past the function for flag errors.
	if strings.HasPrefix(err.Error(), "required flag") {
		err = newUsageError(cmd, err)
	}
	if errors.Is(err, context.Canceled) && !errors.Is(err, interrupt.ErrInterrupted) && ctx.Err() != nil {
		err = interrupt.Cause(ctx) // and not "context canceled"
	}
	fmt.Fprintln(e.stderr, "pastectl:", sentence(err))
	if usage := new(usageError); errors.As(err, &usage) {
		return exitUsage
	}
	return exitError
}

// sentence puts an error into one line.
func sentence(err error) string {
	var lines []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

func newRootCmd(e env) *cobra.Command {
	root := &cobra.Command{
		Use:   "pastectl",
		Short: "Kernel TCP into persistent packet buffers",
		Long: `pastectl operates PASTE: TCP connections of the kernel whose payload arrives in
packet buffers of your own, which may be persistent memory.

A first look at everything, with nothing to prepare:

  pastectl demo

Environment:
  PASTE_BPFFS   mount point of the bpffs for attached interfaces (default /sys/fs/bpf)`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return newUsageError(cmd, err) })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		newAttachCmd(e),
		newDetachCmd(e),
		newStatusCmd(e),
		newDoctorCmd(e),
		newTraceCmd(e),
		newPoolCmd(e),
		newServeCmd(e),
		newRunCmd(e),
		newSwitchCmd(e),
		newBenchCmd(e),
		newDemoCmd(e),
		newVersionCmd(e),
	)
	refuseRepeats(root)
	return root
}

// usageError is a mistake in the command line: exit code 2.
type usageError struct {
	err  error
	help string // the command line that explains it
}

func newUsageError(cmd *cobra.Command, err error) error {
	return &usageError{err: err, help: cmd.CommandPath() + " --help"}
}

func (e *usageError) Error() string { return fmt.Sprintf("%v; see `%s`", e.err, e.help) }
func (e *usageError) Unwrap() error { return e.err }

// noArgs, exactArgs and maxArgs check positional arguments like cobra's, with
// an error that tells what was expected.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return newUsageError(cmd, fmt.Errorf("unknown command %q", args[0]))
	}
	return newUsageError(cmd, fmt.Errorf("unexpected argument %q", args[0]))
}

func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return newUsageError(cmd, fmt.Errorf("missing argument %s", names[len(args)]))
		}
		return maxArgs(len(names))(cmd, args)
	}
}

func maxArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return newUsageError(cmd, fmt.Errorf("unexpected argument %q", args[n]))
		}
		return nil
	}
}

// bpffsPath is the bpffs to pin in; "" means the usual one.
func bpffsPath() string { return os.Getenv("PASTE_BPFFS") }

// printJSON writes v, indented, as one JSON document.
func (e env) printJSON(v any) error {
	enc := json.NewEncoder(e.stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}
