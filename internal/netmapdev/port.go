package netmapdev

import "time"

// binding is what NETMAP_REQ_REGISTER makes of a file: rings of a port, which is one
// of connections (pst.go) or of whole frames (raw.go).
type binding interface {
	where() *memory
	// sync is netmap's txsync or rxsync of the rings.
	sync(tx bool) error
	// poll does what netmap's poll does before it sleeps: it sends, unless
	// NR_NO_TX_POLL forbids it, receives if the program waits for that, and returns
	// those of events that are there, and POLLERR. Nobody wakes whoever sleeps for
	// what comes later than soon, if that is not 0.
	poll(events int16) (found int16, soon time.Duration)
	// wakes are descriptors that are readable when poll may find more.
	wakes() []int
	// fill says what the program is told.
	fill(req *register)
	// release gives the rings back. It is called under the device's lock, once.
	release() error
}
