package pasteapi

import (
	"errors"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/netmap/portspec"
	"github.com/pastenet/paste/pmem"
)

// TestNamed: names of ports of connections are read by the parser of all names.
func TestNamed(t *testing.T) {
	pool, err := pmem.NewMemory("named", pmem.Options{Size: 8 << 20})
	qt.Assert(t, qt.IsNil(err))
	defer func() { qt.Check(t, qt.IsNil(pool.Close())) }()
	for _, c := range []struct {
		name               string
		rings, slots, ring int
	}{
		{"pst:0", 0, 0, -1}, {"pst:a@conf:rings=4,slots=256", 4, 256, -1}, {"pst:0-3@conf:rings=4", 4, 0, 3}, {"pst:0-0/x", 0, 0, 0},
	} {
		o, ring, err := Named(c.name, Options{Pool: pool})
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.DeepEquals([]int{o.Rings, o.Slots, ring}, []int{c.rings, c.slots, c.ring}), qt.Commentf("%s", c.name))
		qt.Check(t, qt.Equals(o.Pool, pool))
	}
	for name, want := range map[string]string{
		"netmap:eth0":                       ".*named pst:NAME.*",
		"vale0:a":                           ".*named pst:NAME.*",
		"pst:0-1":                           ".*ring 1: the port has 1.*",
		"pst:0@conf:rx-rings=2,tx-rings=3":  ".*2 and 3 rings.*",
		"pst:0@conf:rx-slots=64,tx-slots=9": ".*64 and 9 slots.*",
		"pst:0@conf:rings=":                 "port name .*: character .*",
		"pst:0@extmem:file=/other":          `.*pmem.OpenOrCreate\("/other", …\).*`,
	} {
		_, _, err := Named(name, Options{Pool: pool})
		qt.Check(t, qt.ErrorMatches(err, want), qt.Commentf("%s", name))
	}
	for _, name := range []string{"pst:0^", "pst:0*", "pst:0{1", "pst:0/R", "pst:0/T", "pst:0/z", "pst:0@7", "pst:0@share:eth0", "pst:0@offset:initial=16"} {
		_, _, err := Named(name, Options{})
		var at *portspec.Error
		qt.Check(t, qt.IsTrue(errors.Is(err, errors.ErrUnsupported) || errors.As(err, &at)), qt.Commentf("%s: %v", name, err))
	}
	_, _, err = Named("pst:0@conf:rings=4", Options{Rings: 2})
	qt.Check(t, qt.ErrorMatches(err, ".*2 and 4 rings.*"))
}
