package benchcli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// noPastebench is the value of --pastebench that does without.
const noPastebench = "none"

// errNoPastebench says how to get it.
var errNoPastebench = errors.New("there is no pastebench, which serves gnet and draws the plot: build it in a checkout (go -C bench build -o /usr/local/bin ./cmd/pastebench), or run this in one")

// findPastebench returns the program of that name: path if the user named one, the one beside
// this program or in PATH, or one that is built from the checkout around the working directory
// and removed by release.
func findPastebench(ctx context.Context, path string, progress io.Writer) (found string, release func(), err error) {
	release = func() {}
	switch path {
	case noPastebench:
		return "", release, errors.New("--pastebench none: without gnet, and without a plot")
	case "":
	default:
		found, err := exec.LookPath(path)
		if err == nil {
			found, err = filepath.Abs(found)
		}
		if err != nil {
			return "", release, fmt.Errorf("--pastebench: %w", err)
		}
		return found, release, nil
	}
	if self, err := os.Executable(); err == nil {
		if beside, err := exec.LookPath(filepath.Join(filepath.Dir(self), "pastebench")); err == nil {
			return beside, release, nil
		}
	}
	if found, err := exec.LookPath("pastebench"); err == nil {
		if found, err = filepath.Abs(found); err == nil {
			return found, release, nil
		}
	}
	root := checkout()
	if _, err := exec.LookPath("go"); err != nil || root == "" {
		return "", release, errNoPastebench
	}
	dir, err := os.MkdirTemp("", "paste-bench-")
	if err != nil {
		return "", release, fmt.Errorf("build pastebench: %w", err)
	}
	fmt.Fprintf(progress, "building pastebench, for gnet and the plot, from %s\n", filepath.Join(root, "bench"))
	found = filepath.Join(dir, "pastebench")
	out, err := exec.CommandContext(ctx, "go", "-C", filepath.Join(root, "bench"), "build", "-o", found, "./cmd/pastebench").CombinedOutput()
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", release, fmt.Errorf("build pastebench: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return found, func() { _ = os.RemoveAll(dir) }, nil
}

// checkout is the root of this project's source around the working directory, "" if there is
// none.
func checkout() string {
	dir, err := os.Getwd()
	for err == nil {
		b, readErr := os.ReadFile(filepath.Join(dir, "go.mod"))
		if readErr == nil && strings.HasPrefix(string(b), "module github.com/pastenet/paste\n") {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			break
		}
		dir = up
	}
	return ""
}

// plotBy has pastebench draw.
func plotBy(ctx context.Context, exe string) func(from, to string) error {
	return func(from, to string) error {
		out, err := exec.CommandContext(ctx, exe, "plot", from, to).CombinedOutput()
		if err != nil {
			return fmt.Errorf("draw %s: %w: %s", to, err, strings.TrimSpace(string(out)))
		}
		return nil
	}
}
