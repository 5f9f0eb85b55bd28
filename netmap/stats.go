package netmap

// RxStats are the counters of an RX ring since the port was opened.
type RxStats struct {
	Frames uint64 `json:"frames"` // given to the program
	Bytes  uint64 `json:"bytes"`
	Moved  uint64 `json:"moved"` // of which the driver put elsewhere in the buffer, and we had to move

	// Frames that nobody got, neither the program nor the kernel.
	DropRingFull uint64 `json:"drop_ring_full"` // the program was too slow
	DropNoBuffer uint64 `json:"drop_no_buffer"` // it has given no buffers back
	DropOther    uint64 `json:"drop_other"`     // larger than the buffers, or the kernel had no memory
}

// Dropped is the sum of the frames that nobody got.
func (s RxStats) Dropped() uint64 { return s.DropRingFull + s.DropNoBuffer + s.DropOther }

// TxStats are the counters of a TX ring since the port was opened.
type TxStats struct {
	Frames  uint64 `json:"frames"` // handed to the kernel
	Bytes   uint64 `json:"bytes"`
	Refused uint64 `json:"refused"` // broke a rule (ErrFrame)
	Invalid uint64 `json:"invalid"` // the kernel did not take
	Dropped uint64 `json:"dropped"` // nobody was there to take it
}

// Stats are the counters of a port, by ring.
type Stats struct {
	RX []RxStats `json:"rx"`
	TX []TxStats `json:"tx"`
}
