package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/spf13/cobra"
)

// pastectl runs one command line.
func pastectl(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(args, env{stdout: &out, stderr: &err})
	return code, out.String(), err.String()
}

// assertSentence checks that stderr is one line that begins with our name.
func assertSentence(t *testing.T, stderr string) {
	t.Helper()
	qt.Check(t, qt.IsTrue(strings.HasPrefix(stderr, "pastectl: ")), qt.Commentf("%q", stderr))
	qt.Check(t, qt.Equals(strings.Count(stderr, "\n"), 1), qt.Commentf("%q", stderr))
}

// commands returns all commands that a user sees.
func commands(cmd *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{cmd}
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			all = append(all, commands(sub)...)
		}
	}
	return all
}

func TestHelpOfEveryCommand(t *testing.T) {
	for _, cmd := range commands(newRootCmd(env{})) {
		path := strings.Fields(cmd.CommandPath())[1:]
		t.Run(strings.Join(path, " "), func(t *testing.T) {
			qt.Check(t, qt.Not(qt.Equals(cmd.Short, "")))
			long := cmd.Long
			if !cmd.HasSubCommands() {
				qt.Check(t, qt.StringContains(cmd.Example+cmd.Long, cmd.CommandPath()), qt.Commentf("no example"))
				if long == "" {
					long = cmd.Parent().Long // says it for all of them
				}
				qt.Check(t, qt.Not(qt.Equals(long, "")))
			}
			code, stdout, stderr := pastectl(append(path, "--help")...)
			qt.Check(t, qt.Equals(code, exitOK))
			qt.Check(t, qt.Equals(stderr, ""))
			qt.Check(t, qt.StringContains(stdout, strings.TrimSpace(cmd.Long)))
			qt.Check(t, qt.StringContains(stdout, cmd.CommandPath()))
		})
	}
}

func TestEveryCommandIsThere(t *testing.T) {
	var paths []string
	for _, cmd := range commands(newRootCmd(env{})) {
		if !cmd.HasSubCommands() {
			paths = append(paths, strings.TrimPrefix(cmd.CommandPath(), "pastectl "))
		}
	}
	slices.Sort(paths)
	qt.Check(t, qt.DeepEquals(paths, []string{
		"attach", "bench echo", "bench matrix", "bench redis", "bench rpc", "bench sink", "bench stages", "bench udp", "bench wal", "demo", "detach", "doctor",
		"pool check", "pool create", "pool dump", "pool grow", "pool info", "pool log", "pool restore",
		"run", "serve http", "serve kv", "serve redis", "status", "switch", "trace", "version",
	}))
}

func TestUsageErrors(t *testing.T) {
	for _, line := range []string{
		"bogus",
		"--bogus",
		"attach",
		"attach a b",
		"attach a --mode fast",
		"attach --bogus a",
		"detach",
		"detach a b",
		"status a b",
		"version a",
		"bench rpc a",
		"serve http --listen :0 --listen :1 --pool x",
		"serve kv --listen :0 --pool x --nic a --nic b",
		"pool create x --size 1MiB --size 1MiB",
		"status --json --json",
	} {
		t.Run(line, func(t *testing.T) {
			code, stdout, stderr := pastectl(strings.Fields(line)...)
			qt.Check(t, qt.Equals(code, exitUsage))
			qt.Check(t, qt.Equals(stdout, ""))
			assertSentence(t, stderr)
			qt.Check(t, qt.StringContains(stderr, "--help"))
		})
	}
}

func TestVersion(t *testing.T) {
	code, stdout, _ := pastectl("version")
	qt.Assert(t, qt.Equals(code, exitOK))
	for _, word := range []string{"pastectl", "go1.", "kernel", "flush"} {
		qt.Check(t, qt.StringContains(stdout, word))
	}
	var v versionInfo
	code = mustJSON(t, &v, "version", "--json")
	qt.Assert(t, qt.Equals(code, exitOK))
	qt.Check(t, qt.Equals(v.KernelCheck, "supported"))
	qt.Check(t, qt.Not(qt.Equals(v.Kernel, "")))
	qt.Check(t, qt.Not(qt.Equals(v.Flush, "")))
}
