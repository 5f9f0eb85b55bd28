package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// steerCounters are the names of enum steer_counter.
var steerCounters = [...]string{
	steerSteerCounterSTEER_REDIRECT:       "redirect",
	steerSteerCounterSTEER_PASS_NO_SOCKET: "pass_no_socket",
	steerSteerCounterSTEER_PASS_PORT:      "pass_port",
	steerSteerCounterSTEER_PASS_CONTROL:   "pass_control",
	steerSteerCounterSTEER_PASS_FRAGMENT:  "pass_fragment",
	steerSteerCounterSTEER_PASS_OPTIONS:   "pass_options",
	steerSteerCounterSTEER_PASS_NOT_TCP:   "pass_not_tcp",
	steerSteerCounterSTEER_PASS_ADDRESS:   "pass_address",
	steerSteerCounterSTEER_PASS_VLAN:      "pass_vlan",
	steerSteerCounterSTEER_PASS_MALFORMED: "pass_malformed",
	steerSteerCounterSTEER_PASS_SMALL:     "pass_small",
	steerSteerCounterSTEER_PASS_LARGE:     "pass_large",
	steerSteerCounterSTEER_PASS_INJECTED:  "pass_injected",
	steerSteerCounterSTEER_PASS_RING:      "pass_ring",
	steerSteerCounterSTEER_PASS_CONN:      "pass_conn",
}

// ticketCounters are the names of enum ticket_counter.
var ticketCounters = [...]string{
	ticketTicketCounterTICKET_CLAIMED:   "claimed",
	ticketTicketCounterTICKET_NO_TICKET: "no_ticket",
	ticketTicketCounterTICKET_STALE:     "stale",
	ticketTicketCounterTICKET_RANGE:     "range",
	ticketTicketCounterTICKET_OVERFLOW:  "overflow",
	ticketTicketCounterTICKET_COPIED:    "copied",
}

// Neither enum has a counter without a name: these do not compile then.
var (
	_ [steerSteerCounterSTEER_COUNTERS]string    = steerCounters
	_ [ticketTicketCounterTICKET_COUNTERS]string = ticketCounters
)

// readCounters sums each row of a per-CPU array over the CPUs.
func readCounters(m *ebpf.Map, names []string) (map[string]uint64, error) {
	counters := make(map[string]uint64, len(names))
	for i, name := range names {
		var perCPU []uint64
		if err := m.Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read counter %s: %w", name, err)
		}
		for _, v := range perCPU {
			counters[name] += v
		}
	}
	return counters, nil
}
