package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/pastenet/paste/internal/netlab"
	"go.uber.org/goleak"
)

// labPrefix begins the names of everything that the suite makes.
const labPrefix = "te"

var (
	pastectl string // the program under test
	poolDir  string // on tmpfs, for pool files
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	fail := func(format string, args ...any) int {
		fmt.Fprintf(os.Stderr, "tests: "+format+"\n", args...)
		return 1
	}
	if len(os.Args) > 2 && os.Args[1] == withoutURing {
		return fail("%v", runWithoutURing(os.Args[2:]))
	}
	if os.Geteuid() != 0 {
		return fail("the end-to-end tests make network namespaces: run them as root")
	}
	for _, tool := range []string{"bpftool", "curl", "h2load", "ip", "nft", "setpriv", "wrk"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fail("%s is needed and not installed (scripts/test installs it): %v", tool, err)
		}
	}
	if err := sweep(); err != nil {
		return fail("%v", err)
	}
	// What nohup(1) makes us ignore, the servers would ignore too; what is caught here
	// is not ignored by a child (signal(7)).
	if signal.Ignored(syscall.SIGHUP) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	dir, err := os.MkdirTemp("", tempName())
	if err != nil {
		return fail("%v", err)
	}
	defer os.RemoveAll(dir)
	// A program that runs without privilege must be able to reach it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return fail("%v", err)
	}
	pastectl = filepath.Join(dir, "pastectl")
	// Where there is no Go, somebody has built it.
	build := exec.Command("go", "build", "-o", pastectl, "github.com/pastenet/paste/cmd/pastectl")
	if built := os.Getenv("PASTE_TEST_PASTECTL"); built != "" {
		build = exec.Command("cp", built, pastectl)
	}
	if out, err := build.CombinedOutput(); err != nil {
		return fail("build pastectl: %v\n%s", err, out)
	}
	if poolDir, err = os.MkdirTemp("/dev/shm", tempName()); err != nil {
		return fail("%v", err)
	}
	if err := os.Chmod(poolDir, 0o777); err != nil {
		return fail("%v", err)
	}
	code := m.Run()
	if err := leftovers(); err != nil {
		code = fail("left behind: %v", err)
	}
	if err := os.RemoveAll(poolDir); err != nil {
		code = fail("%v", err)
	}
	return code
}

const tempPrefix = "paste-tests-"

// tempName is a pattern for os.MkdirTemp that tells whose directory it is.
func tempName() string { return tempPrefix + strconv.Itoa(os.Getpid()) + "-" }

// sweep removes the directories of runs that were killed.
func sweep() error {
	var errs []error
	for _, dir := range []string{os.TempDir(), "/dev/shm"} {
		old, err := filepath.Glob(filepath.Join(dir, tempPrefix+"*-*"))
		errs = append(errs, err)
		for _, path := range old {
			pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), tempPrefix), "-")
			if n, err := strconv.Atoi(pid); err == nil && !netlab.Alive(n) {
				errs = append(errs, os.RemoveAll(path))
			}
		}
	}
	return errors.Join(errs...)
}

// leftovers looks for what the suite should have removed: goroutines,
// processes, namespaces, devices, mounts, pool files.
func leftovers() error {
	errs := []error{goleak.Find()}
	comms, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, link := range comms {
		if exe, err := os.Readlink(link); err == nil && strings.HasPrefix(exe, filepath.Dir(pastectl)) {
			errs = append(errs, fmt.Errorf("process %s", filepath.Base(filepath.Dir(link))))
		}
	}
	mark, pid := "paste-"+labPrefix, "-"+strconv.Itoa(os.Getpid())
	entries, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), mark) && strings.HasSuffix(e.Name(), pid) {
			errs = append(errs, fmt.Errorf("namespace %s", e.Name()))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		errs = append(errs, err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, mark) && strings.Contains(line, pid+" ") || strings.Contains(line, poolDir) {
			errs = append(errs, fmt.Errorf("mount %s", strings.TrimSpace(line)))
		}
	}
	// Devices of dead namespaces vanish; one in ours would stay.
	devs, err := os.ReadDir("/sys/class/net")
	if err != nil {
		errs = append(errs, err)
	}
	for _, d := range devs {
		if strings.HasSuffix(d.Name(), strconv.FormatInt(int64(os.Getpid()), 36)) {
			errs = append(errs, fmt.Errorf("device %s", d.Name()))
		}
	}
	files, err := os.ReadDir(poolDir)
	if err != nil {
		errs = append(errs, err)
	}
	for _, f := range files {
		errs = append(errs, fmt.Errorf("pool file %s", f.Name()))
	}
	return errors.Join(errs...)
}
