package netmap

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/netmap/portspec"
	"github.com/pastenet/paste/xsk"
)

// Options say what a name does not. The zero value is usable.
type Options struct {
	// Memory is what the port has its rings and buffers in. nil: that of the name
	// (@extmem, @share, @N), or else one that all such ports of this process share.
	// It must outlive the Port.
	Memory *Memory
	// Slots per ring, from 4 to 32768; 0 = what the name says, or 1024.
	Slots int
	// ExtraBufs is how many buffers, which are in no ring, are the program's:
	// netmap's nr_extra_bufs. They are chained from the netmap_if's ni_bufs_head; in Go, Memory.Alloc is simpler.
	ExtraBufs int
	// XDPMode of the program on the NIC; bpf.ModeAuto takes generic mode where the
	// driver has no XDP.
	XDPMode bpf.XDPMode
	// BindMode of the AF_XDP sockets; xsk.Auto takes zero-copy where the driver has
	// it.
	BindMode xsk.BindMode
	// Spin is how long Poll looks at the rings before it sleeps; negative: it never
	// sleeps.
	Spin time.Duration
	// Logger is told how the NIC was opened; nil = slog.Default().
	Logger *slog.Logger
}

// Limits of Options.Slots.
const (
	minSlots     = 4
	maxSlots     = 32768
	defaultSlots = 1024
)

// openOptions are what a name and Options come to.
type openOptions struct {
	spec             *portspec.Spec
	rxSlots, txSlots int
	bind             xsk.BindMode
	xdp              bpf.XDPMode
	rx, tx           bool
}

func (o *Options) with(s *portspec.Spec) (*openOptions, error) {
	c := &openOptions{spec: s, bind: o.BindMode, xdp: o.XDPMode,
		rx: s.Flags&portspec.TxOnly == 0, tx: s.Flags&portspec.RxOnly == 0}
	for _, d := range []struct {
		to   *int
		name int
	}{{&c.rxSlots, s.Conf.RxSlots}, {&c.txSlots, s.Conf.TxSlots}} {
		switch {
		case o.Slots != 0:
			*d.to = o.Slots
		case d.name != 0:
			*d.to = d.name
		default:
			*d.to = defaultSlots
		}
		if *d.to < minSlots || *d.to > maxSlots {
			return nil, fmt.Errorf("%d slots: must be from %d to %d", *d.to, minSlots, maxSlots)
		}
	}
	if !c.rx && !c.tx {
		return nil, errors.New("RX only and TX only exclude each other")
	}
	if s.Flags&(portspec.MonitorRX|portspec.MonitorTX|portspec.ZCopyMon) != 0 {
		return nil, fmt.Errorf("monitors (/z, /t, /r) are not here: tcpdump sees the host's side, and pastectl switch logs what it forwards: %w", errors.ErrUnsupported)
	}
	if s.Offset != nil {
		return nil, fmt.Errorf("frames begin at the start of their buffers: leave @offset out: %w", errors.ErrUnsupported)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return c, nil
}
