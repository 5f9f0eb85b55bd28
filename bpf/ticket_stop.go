package bpf

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// StopSocket has the verdict write no more records of a socket, as if the ring of
// deliveries had been full: all bytes that come from then on stay in the socket, for
// good (see Overflowed). Bytes that are on their way may still be delivered.
// Stopping a socket again is no error.
func (t *Ticket) StopSocket(cookie uint64) error {
	one := uint32(1)
	err := t.objs.TicketStopped.Update(&cookie, &one, ebpf.UpdateNoExist)
	switch {
	case err == nil:
		atomic.AddUint32(&t.ctl.Stopping, 1)
	case !errors.Is(err, ebpf.ErrKeyExist):
		return fmt.Errorf("stop deliveries of a socket: %w", err)
	}
	return nil
}

func (t *Ticket) forgetStopped(cookie uint64) error {
	if atomic.LoadUint32(&t.ctl.Stopping) == 0 {
		return nil
	}
	err := t.objs.TicketStopped.Delete(&cookie)
	switch {
	case err == nil:
		atomic.AddUint32(&t.ctl.Stopping, ^uint32(0))
	case !errors.Is(err, ebpf.ErrKeyNotExist):
		return fmt.Errorf("forget a stopped socket: %w", err)
	}
	return nil
}
