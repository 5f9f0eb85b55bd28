package testkernel

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestBefore(t *testing.T) {
	for _, tc := range []struct {
		release, version string
		older            bool
	}{
		{"6.12.48+deb13-amd64", "6.17", true},
		{"6.17.0-5-generic", "6.17", false},
		{"6.18.1", "6.17", false},
		{"7.0.0-rc1", "6.17", false},
		{"5.19.0", "6.6", true},
		{"6.6.9", "6.6", false},
	} {
		got, err := before(tc.release, tc.version)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got, tc.older), qt.Commentf("%v", tc))
	}
	_, err := before("x", "6.6")
	qt.Check(t, qt.ErrorMatches(err, `"x" is no kernel version`))
}

func TestConfigured(t *testing.T) {
	const config = "# comment\nCONFIG_A=y\nCONFIG_AB=m\n# CONFIG_C is not set\nCONFIG_D=n\n"
	for option, want := range map[string]bool{"A": true, "AB": true, "C": false, "D": false, "E": false, "": false} {
		got, err := configured(strings.NewReader(config), option)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(got, want), qt.Commentf("%q", option))
	}
}

// What runs here is what we promise to run on.
func TestSkips(t *testing.T) {
	ran := false
	t.Run("old feature", func(t *testing.T) {
		SkipBefore(t, "2.6", "everything")
		SkipWithout(t, "NET")
		ran = true
	})
	qt.Check(t, qt.Equals(ran, true))
	t.Run("future feature", func(t *testing.T) {
		SkipBefore(t, "999.0", "teleportation")
		t.Error("not skipped")
	})
}
