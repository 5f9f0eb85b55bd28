package bpf

import (
	"fmt"
)

// Configure tells the program about the NIC as it is now: its address, which is
// compared with each frame's destination, and the VLANs on it. room is the size in
// bytes of the largest frame that a packet buffer takes (FrameRoom); larger ones
// pass. NIC queue j belongs to ring j modulo rings. Only the application that receives calls it: others must not change what
// it relies on.
func (s *Steer) Configure(room, rings int) error {
	n, err := lookupIndex(s.info.Ifindex)
	if err != nil {
		return err
	}
	return s.configure(n, room, rings)
}

// Holds returns nil while the program is on the NIC. The error wraps ErrNotAttached
// after somebody has detached it, and ErrReplaced after somebody has put another
// program into its link.
func (s *Steer) Holds() error {
	info, err := s.link.Info()
	if err != nil || info.XDP() == nil || int(info.XDP().Ifindex) != s.info.Ifindex {
		return notAttached(s.info.NIC)
	}
	if id := uint32(info.Program); id != s.info.ProgID {
		return fmt.Errorf("interface %s: %w: XDP program %d (%s) was put into its link", s.info.NIC, ErrReplaced, id, programName(id))
	}
	return nil
}

// Queues returns how many RX queues an interface uses now.
func Queues(nic string) (int, error) {
	n, err := lookupNIC(nic)
	if err != nil {
		return 0, err
	}
	return n.rxQueues(), nil
}

func (s *Steer) configure(n *nic, room, rings int) error {
	vlans, err := vlansOn(n.ifindex)
	if err != nil {
		return fmt.Errorf("interface %s: list its VLANs: %w", n.name, err)
	}
	table, err := newVLANTable(vlans)
	if err != nil {
		return fmt.Errorf("interface %s: list the addresses of its VLANs: %w", n.name, err)
	}
	s.vlans.Store(table)
	cfg := steerNicConfig{Mac: [6]byte(n.mac), Room: uint16(room), Rings: uint32(rings)}
	for _, v := range append(vlans, vlanDevice{}) { // 0 stands for none in a tag
		cfg.Vlans[v.ID/64] |= 1 << (v.ID % 64)
	}
	if err := s.maps.SteerConfig.Put(uint32(0), cfg); err != nil {
		return fmt.Errorf("interface %s: configure steering: %w", n.name, err)
	}
	return nil
}

// FrameRoom is the largest frame in bytes that fits a UMEM frame of frameSize bytes,
// behind the headroom that the kernel keeps for XDP. It drops larger ones.
func FrameRoom(frameSize int) int { return max(0, frameSize-xdpHeadroom) }
