package bpf

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/go-quicktest/qt"
)

// helperEnv makes the test binary attach a NIC in place of running the tests.
const helperEnv = "PASTE_BPF_TEST_HELPER"

// helperMain executes "attach NIC BPFFS" and prints the error it got.
func helperMain() int {
	args := strings.Fields(os.Getenv(helperEnv))
	s, err := AttachSteer(context.Background(), SteerOptions{NIC: args[1], Pin: true, BPFFS: args[2]})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	s.Close()
	return 0
}

// helper runs the test binary as another process in this thread's network
// namespace, with the namespaces that the CLONE_ flags name of its own.
func helper(t *testing.T, what string, unshare uintptr) (string, error) {
	t.Helper()
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), helperEnv+"="+what)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unshare}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
