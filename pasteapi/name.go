package pasteapi

import (
	"errors"
	"fmt"

	"github.com/pastenet/paste/netmap/portspec"
)

// Named adds to options what a port's name says, as upstream writes it:
// "pst:0-1@conf:rings=4,slots=1024" is ring 1 of a port of 4 rings. ring is -1 where the
// name is about all of them; what follows "pst:" is free to choose. @extmem has to name the
// file of Options.Pool. An error of the name points at the character (portspec.Error); what a
// port of connections does not have is refused by an errors.ErrUnsupported.
func Named(name string, o Options) (_ Options, ring int, err error) {
	s, err := portspec.Parse(name)
	if err != nil {
		return o, 0, err
	}
	if o.Rings, err = agreed("rings", o.Rings, s.Conf.RxRings, s.Conf.TxRings); err == nil {
		o.Slots, err = agreed("slots", o.Slots, s.Conf.RxSlots, s.Conf.TxSlots)
	}
	if err == nil {
		ring, err = o.checkName(s)
	}
	if err != nil {
		return o, 0, fmt.Errorf("%s: %w", name, err)
	}
	return o, ring, nil
}

// agreed is what was said, once or several times, of a number; 0: nothing.
func agreed(what string, said ...int) (n int, err error) {
	for _, v := range said {
		if v != 0 && n != 0 && v != n {
			return 0, fmt.Errorf("%d and %d %s: a ring is a pair, of one size", n, v, what)
		}
		n = max(n, v)
	}
	return n, nil
}

// checkName refuses what a port of connections does not have, and says which ring the name
// is about.
func (o *Options) checkName(s *portspec.Spec) (ring int, err error) {
	const pair = portspec.RxOnly | portspec.TxOnly
	refuse := func(what string) (int, error) { return 0, fmt.Errorf("%s: %w", what, errors.ErrUnsupported) }
	switch {
	case s.Subsystem != portspec.Pst:
		return 0, errors.New("a port of connections is named pst:NAME; netmap.Open opens those of frames")
	case s.End != 0 || s.Mode != portspec.AllNIC && s.Mode != portspec.OneNIC:
		return refuse("a port of connections has neither pipes nor rings of the host")
	case s.Conf.HostRxRings != 0 || s.Conf.HostTxRings != 0:
		return refuse("a port of connections has no rings of the host")
	case s.Flags&pair != 0:
		return refuse("a ring of connections is always a pair: leave /R and /T out")
	case s.Flags&^(portspec.Exclusive) != 0:
		return refuse("monitors are not here")
	case s.MemID != 0 || s.Share != "" || s.Offset != nil:
		return refuse("its memory is Options.Pool: leave @NUMBER, @share and @offset out")
	case s.Extmem != nil && (o.Pool == nil || s.Extmem.File != o.Pool.Path()):
		return 0, fmt.Errorf("@extmem: open the pool by pmem.OpenOrCreate(%q, …), and give it as Options.Pool", s.Extmem.File)
	case s.Mode == portspec.AllNIC:
		return -1, nil
	case s.Ring >= max(o.Rings, 1):
		return 0, fmt.Errorf("ring %d: the port has %d, from 0 on (@conf:rings=%d)", s.Ring, max(o.Rings, 1), s.Ring+1)
	}
	return s.Ring, nil
}
