package bpf

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// helperEnv makes the test binary run one function in place of the tests.
const helperEnv = "PASTE_BPF_TEST_HELPER"

// helperMain runs as another process: "attach NIC BPFFS" and "open NIC BPFFS"
// print the error they got.
func helperMain() int {
	args := strings.Fields(os.Getenv(helperEnv))
	var s *Steer
	var err error
	switch args[0] {
	case "attach":
		s, err = AttachSteer(SteerOptions{NIC: args[1], Pin: true, BPFFS: args[2]})
	case "open":
		s, err = OpenSteer(args[2], args[1])
	default:
		err = fmt.Errorf("unknown helper %q", args[0])
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	s.Close()
	return 0
}

// helper runs the test binary in this thread's network namespace; wrap may
// change its credentials.
func helper(t *testing.T, what string, wrap ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	qt.Assert(t, qt.IsNil(err))
	argv := append(wrap, self)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), helperEnv+"="+what)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
