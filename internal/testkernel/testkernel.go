// Package testkernel says which tests the running kernel cannot pass.
//
// A test is skipped for two reasons only: the kernel is older than the version
// that brought what is tested, or it was built without the driver, and says so.
// That an effect does not show is none: then a test fails.
package testkernel

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// SkipBefore skips the test on kernels older than version ("6.17"), which brought
// the feature.
func SkipBefore(t testing.TB, version, feature string) {
	t.Helper()
	if Before(t, version) {
		t.Skipf("%s came with Linux %s, this is %s", feature, version, release(t))
	}
}

// Before reports whether the running kernel is older than version.
func Before(t testing.TB, version string) bool {
	t.Helper()
	older, err := before(release(t), version)
	if err != nil {
		t.Fatal(err)
	}
	return older
}

// SkipWithout skips the test if the kernel's configuration says that an option
// ("VLAN_8021Q") is off. Where the kernel does not tell, the test runs.
func SkipWithout(t testing.TB, option string) {
	t.Helper()
	for _, open := range []func() (io.ReadCloser, error){
		func() (io.ReadCloser, error) { return os.Open("/boot/config-" + release(t)) },
		openConfigGz,
	} {
		f, err := open()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		on, err := configured(f, option)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if !on {
			t.Skipf("kernel %s is built without CONFIG_%s", release(t), option)
		}
		return
	}
}

func openConfigGz() (io.ReadCloser, error) {
	f, err := os.Open("/proc/config.gz")
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{z, f}, nil
}

// configured looks up an option in a kernel's configuration. What is not mentioned
// there is off.
func configured(config io.Reader, option string) (bool, error) {
	lines := bufio.NewScanner(config)
	for lines.Scan() {
		value, found := strings.CutPrefix(lines.Text(), "CONFIG_"+option+"=")
		if found {
			return value == "y" || value == "m", nil
		}
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("read the kernel's configuration: %w", err)
	}
	return false, nil
}

func release(t testing.TB) string {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatalf("uname: %v", err)
	}
	return unix.ByteSliceToString(uts.Release[:])
}

// before compares the first two numbers of versions.
func before(release, version string) (bool, error) {
	var have, want [2]int
	for text, v := range map[string]*[2]int{release: &have, version: &want} {
		if n, _ := fmt.Sscanf(text, "%d.%d", &v[0], &v[1]); n != 2 {
			return false, fmt.Errorf("%q is no kernel version", text)
		}
	}
	return have[0] < want[0] || have[0] == want[0] && have[1] < want[1], nil
}
