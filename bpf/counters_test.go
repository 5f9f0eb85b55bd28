package bpf

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/go-quicktest/qt"
)

// TestCounterNames compares the names of counters with those in the programs'
// own type information, so that a reordered enum cannot give a counter the name
// of another.
func TestCounterNames(t *testing.T) {
	steer, err := loadSteer()
	qt.Assert(t, qt.IsNil(err))
	ticket, err := loadTicket()
	qt.Assert(t, qt.IsNil(err))
	for _, c := range []struct {
		spec         *ebpf.CollectionSpec
		enum, prefix string
		names        []string
	}{
		{steer, "steer_counter", "STEER_", steerCounters[:]},
		{ticket, "ticket_counter", "TICKET_", ticketCounters[:]},
	} {
		var enum *btf.Enum
		qt.Assert(t, qt.IsNil(c.spec.Types.TypeByName(c.enum, &enum)))
		qt.Assert(t, qt.HasLen(enum.Values, len(c.names)+1)) // with the number of them
		for _, v := range enum.Values[:len(c.names)] {
			name := strings.ToLower(strings.TrimPrefix(v.Name, c.prefix))
			qt.Check(t, qt.Equals(c.names[v.Value], name))
		}
	}
}
