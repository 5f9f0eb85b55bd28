package portspec_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/netmap/portspec"
)

func TestParse(t *testing.T) {
	for name, want := range map[string]portspec.Spec{
		"netmap:eth0":      {Name: "eth0", Mode: portspec.AllNIC},
		"netmap:eth0-12":   {Name: "eth0", Mode: portspec.OneNIC, Ring: 12},
		"netmap:br-lan":    {Name: "br-lan", Mode: portspec.AllNIC},
		"netmap:br-lan-3":  {Name: "br-lan", Mode: portspec.OneNIC, Ring: 3},
		"netmap:eth0.7":    {Name: "eth0.7", Mode: portspec.AllNIC},
		"netmap:eth0^":     {Name: "eth0", Mode: portspec.Host},
		"netmap:eth0^2":    {Name: "eth0", Mode: portspec.OneHost, Ring: 2},
		"netmap:eth0*/x":   {Name: "eth0", Mode: portspec.NICAndHost, Flags: portspec.Exclusive},
		"netmap:eth0/R":    {Name: "eth0", Mode: portspec.AllNIC, Flags: portspec.RxOnly},
		"netmap:eth0/xzT@": {},
		"netmap:p{x":       {Name: "p", Pipe: "x", End: portspec.Master, Mode: portspec.AllNIC},
		"netmap:p}x/T":     {Name: "p", Pipe: "x", End: portspec.Slave, Mode: portspec.AllNIC, Flags: portspec.TxOnly},
		"vale0:a":          {Subsystem: portspec.Vale, Switch: "0", Name: "a", Mode: portspec.AllNIC},
		"vale:a{1":         {Subsystem: portspec.Vale, Name: "a", Pipe: "1", End: portspec.Master, Mode: portspec.AllNIC},
		"pst:0-1":          {Subsystem: portspec.Pst, Name: "0", Mode: portspec.OneNIC, Ring: 1},
		"pst:0@extmem:file=/dev/shm/a,buf-num=7": {Subsystem: portspec.Pst, Name: "0", Mode: portspec.AllNIC,
			Extmem: &portspec.Extmem{File: "/dev/shm/a", BufNum: 7}},
		"netmap:eth0-0/R@conf:rings=2,slots=1024": {Name: "eth0", Mode: portspec.OneNIC, Flags: portspec.RxOnly,
			Conf: portspec.Conf{TxRings: 2, RxRings: 2, TxSlots: 1024, RxSlots: 1024}},
		// The special key counts, wherever it stands; _ is written for - as well.
		"netmap:eth0@3@conf:tx_slots=64,slots=128,host-rings=1": {Name: "eth0", Mode: portspec.AllNIC, MemID: 3,
			Conf: portspec.Conf{TxSlots: 64, RxSlots: 128, HostTxRings: 1, HostRxRings: 1}},
		"netmap:eth0@conf=4":                    {Name: "eth0", Mode: portspec.AllNIC, Conf: portspec.Conf{TxRings: 4, RxRings: 4}},
		"netmap:eth0@share=vale1:b":             {Name: "eth0", Mode: portspec.AllNIC, Share: "vale1:b"},
		"netmap:eth0@offset=0":                  {Name: "eth0", Mode: portspec.AllNIC, Offset: &portspec.Offset{}},
		"netmap:eth0@offset:initial=64,bits=16": {Name: "eth0", Mode: portspec.AllNIC, Offset: &portspec.Offset{Initial: 64, Bits: 16}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := portspec.Parse(name)
			if want.Name == "" {
				qt.Assert(t, qt.IsNotNil(err))
				return
			}
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.DeepEquals(*got, want))
			again, err := portspec.Parse(got.String())
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.DeepEquals(again, got))
		})
	}
}

// TestParseRefuses has the caret below the character that is wrong.
func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, caret, msg string }{
		{"eth0", "    ^", "netmap:eth0"},
		{"", "^", "begins with"},
		{"nitmap:eth0", "^", "unknown prefix"},
		{"netmap1:eth0", "      ^", "between netmap and the colon"},
		{"vale-1:a", "    ^", "letters, digits"},
		{"netmap:", "       ^", "no name"},
		{"netmap:^", "       ^", "no name"},
		{"netmap:eth0-", "            ^", "number of the ring is missing"},
		{"netmap:eth0-9999", "            ^", "from 0 to 4094"},
		{"netmap:eth0^x", "            ^", `unexpected "x"`},
		{"netmap:eth0*1", "            ^", `unexpected "1"`},
		{"netmap:eth0/", "            ^", "no flag"},
		{"netmap:eth0/Rq", "             ^", "unknown flag"},
		{"netmap:eth0/RT", "             ^", "exclude each other"},
		{"netmap:eth0{", "            ^", "pipe has no name"},
		{"netmap:eth0{a.b", "             ^", "pipe's name"},
		{"netmap:eth0{1-2", "             ^", "one pair of rings"},
		{"netmap:eth0{1^", "             ^", "one pair of rings"},
		{"netmap:eth0@", "            ^", "follows the @"},
		{"netmap:eth0@0", "            ^", "from 1 to"},
		{"netmap:eth0@nope=1", "            ^", "unknown option"},
		{"netmap:eth0@conf", "                ^", "has no value"},
		{"netmap:eth0@conf:rungs=1", "                 ^", `no key "rungs"`},
		{"netmap:eth0@conf:rings=x", "                       ^", "not a number"},
		{"netmap:eth0@conf:rings=-1", "                       ^", "not a number"},
		{"netmap:eth0@conf:rings=0", "                       ^", "from 1 to"},
		{"netmap:eth0@conf:rings=99999999999999999999", "                       ^", "from 1 to"},
		{"netmap:eth0@conf:rings=1,rings=2", "                         ^", "twice"},
		{"netmap:eth0@conf:rings=1@conf:slots=2", "                         ^", "twice"},
		{"netmap:eth0@conf:rings=", "                       ^", "no value"},
		{"netmap:eth0@extmem:buf-num=1", "                  ^", "needs the key file"},
		{"netmap:" + strings.Repeat("a", 64), "       ^", "may have 63"},
		{"pst:0^", "     ^", "no rings of the host's"},
		{"pst:0{1", "     ^", "no pipes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := portspec.Parse(c.name)
			e := new(portspec.Error)
			qt.Assert(t, qt.ErrorAs(err, &e))
			lines := strings.Split(e.Caret(), "\n")
			qt.Assert(t, qt.HasLen(lines, 3))
			qt.Check(t, qt.Equals(lines[0], c.name))
			qt.Check(t, qt.Equals(lines[1], c.caret))
			qt.Check(t, qt.StringContains(lines[2], c.msg))
			qt.Check(t, qt.StringContains(err.Error(), c.msg))
			qt.Check(t, qt.IsFalse(errors.Is(err, errors.ErrUnsupported)))
		})
	}
}

// TestParseNotHere has what upstream has and we do not refused by name.
func TestParseNotHere(t *testing.T) {
	for name, word := range map[string]string{
		"ptnetmap:eth0":                   "ptnetmap",
		"netmap:eth0@csb:x=1":             "CSB",
		"netmap:eth0@kloop":               "kernel loop",
		"netmap:eth0@sync-kloop-mode=1":   "kernel loop",
		"netmap:eth0@sync_kloop_eventfds": "kernel loop",
		"netmap:eth0@ptnetmap":            "ptnetmap",
		"stack:0":                         "pst:",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := portspec.Parse(name)
			qt.Check(t, qt.ErrorIs(err, errors.ErrUnsupported))
			qt.Check(t, qt.ErrorMatches(err, ".*"+word+".*"))
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"netmap:eth0", "netmap:eth0-0/R@conf:rings=2,slots=1024", "pst:0@extmem:file=/x", "vale0:a{1",
		"netmap:a-b-3@7/x@share=vale:x", "netmap:eth0^1@offset=0", "netmap:é^@", "netmap:eth0@csb", "pst:0-1@conf=2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		s, err := portspec.Parse(name)
		if err != nil {
			e := new(portspec.Error)
			qt.Assert(t, qt.ErrorAs(err, &e))
			qt.Assert(t, qt.IsTrue(e.At >= 0 && e.At <= len(name)), qt.Commentf("at %d", e.At))
			qt.Assert(t, qt.HasLen(strings.Split(e.Caret(), "\n"), 3))
			return
		}
		again, err := portspec.Parse(s.String())
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%q", s.String()))
		qt.Assert(t, qt.DeepEquals(again, s))
	})
}
