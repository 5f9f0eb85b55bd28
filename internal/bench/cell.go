package bench

import (
	"fmt"
	"slices"

	"github.com/pastenet/paste/internal/contender"
	"github.com/pastenet/paste/internal/loadgen"
)

// Cell is one measurement of a matrix.
type Cell struct {
	Workload    loadgen.Workload `json:"workload"`
	Size        int              `json:"size"`
	Connections int              `json:"connections"`
	// Share of epoll's rate in the same cell without it, which must come before, is
	// offered; 0 is a closed loop.
	Share float64 `json:"offered_share,omitempty"`
	// Wire is Config's.
	Wire bool  `json:"wire,omitempty"`
	Bars []Bar `json:"bars,omitempty"`
	// also are contenders that no bar is about.
	also []string
}

// Bar is what is asked of a ratio of two contenders.
type Bar struct {
	Who string `json:"who"`
	To  string `json:"to"`
	Of  Figure `json:"of"`
	// Floor is the least that a ratio of rates shall be, or the most that one of CPU
	// times shall be, 0 if nothing is asked; Aim is what is wished for, 0 if nothing more is.
	Floor float64 `json:"floor"`
	Aim   float64 `json:"aim,omitempty"`
}

// reached says whether a ratio is as good as a bound.
func (b Bar) reached(ratio, bound float64) bool {
	if b.Of == CPU {
		return ratio <= bound
	}
	return ratio >= bound
}

// sign stands before a bound.
func (b Bar) sign() string {
	if b.Of == CPU {
		return "≤"
	}
	return "≥"
}

const (
	toEpoll = "epoll"
	toGoNet = "go-net"
	toGnet  = "gnet" // of the module bench/
)

// adapted compares Go's net over rings with the same program over sockets.
func adapted() Bar { return Bar{string(contender.GoNetPaste), toGoNet, Rate, 0, 0} }

// nginx compares with it, where it is installed.
func nginx() Bar { return rate(Nginx, 0, 0) }

// rate is a bar for PASTE's rate.
func rate(to string, floor, aim float64) Bar { return Bar{Paste, to, Rate, floor, aim} }

// Matrix is the table that docs/performance.md is made from.
func Matrix() []Cell {
	steered := func(floor float64) Bar { return Bar{PasteSteered, toEpoll, Rate, floor, 0} }
	cpu := func(floor, aim float64) Bar { return Bar{Paste, toEpoll, CPU, floor, aim} }
	return []Cell{
		{Workload: loadgen.WAL, Size: 8 << 10, Connections: 50, Bars: []Bar{rate(toEpoll, 1, 1.2)}},
		{Workload: loadgen.WAL, Size: 64 << 10, Connections: 20, Bars: []Bar{rate(toEpoll, 1, 1.2), steered(0.6), nginx()}},
		{Workload: loadgen.Sink, Size: 64 << 10, Connections: 1, Bars: []Bar{rate(toEpoll, 1, 1.1)}},
		{Workload: loadgen.Sink, Size: 1024, Connections: 1, Bars: []Bar{rate(toEpoll, 1, 1.1)}},
		{Workload: loadgen.WAL, Size: 1024, Connections: 1, Bars: []Bar{rate(toEpoll, 1.05, 0), cpu(1.3, 0)}},
		{Workload: loadgen.WAL, Size: 1024, Connections: 8, Bars: []Bar{rate(toEpoll, 1.12, 1.3)}},
		{Workload: loadgen.WAL, Size: 1024, Connections: 100,
			Bars: []Bar{rate(toEpoll, 1.12, 1.3), rate(toGoNet, 1.8, 2.5), rate(toGnet, 1.2, 1.5), steered(1), adapted(), nginx()}},
		{Workload: loadgen.WAL, Size: 1024, Connections: 400, Bars: []Bar{rate(toEpoll, 1.05, 1.2)}},
		{Workload: loadgen.WAL, Size: 1024, Connections: 1000, Bars: []Bar{rate(toEpoll, 1.05, 1.2)}},
		{Workload: loadgen.RPC, Size: 64, Connections: 100,
			Bars: []Bar{rate(toEpoll, 1.08, 1.25), rate(toGoNet, 1.8, 2.5), rate(toGnet, 1.2, 1.5), adapted(), nginx()}},
		{Workload: loadgen.RPC, Size: 64, Connections: 400, Bars: []Bar{rate(toEpoll, 1.08, 1.25)}},
		{Workload: loadgen.Echo, Size: 64, Connections: 100, also: []string{toEpoll}},
		{Workload: loadgen.WAL, Size: 1024, Connections: 100, Share: 0.6, Bars: []Bar{cpu(0.95, 0.8)}},
		{Workload: loadgen.RPC, Size: 64, Connections: 100, Share: 0.6, Bars: []Bar{cpu(0.95, 0.8)}},
	}
}

// String names a cell as a user picks it: "wal-1024-100", "rpc-64-100-60%".
func (c Cell) String() string {
	s := fmt.Sprintf("%s-%d-%d", c.Workload, c.Size, c.Connections)
	if c.Share > 0 {
		s += fmt.Sprintf("-%.0f%%", 100*c.Share)
	}
	if c.Wire {
		s += "-wire"
	}
	return s
}

// closed names the cell whose rate a share is of.
func (c Cell) closed() string {
	c.Share = 0
	return c.String()
}

// contenders are those that a cell needs: PASTE, the same without spinning, whom its
// bars name, and io_uring for comparison.
func (c Cell) contenders() []string {
	names := []string{Paste}
	if c.Workload == loadgen.RPC || c.Workload == loadgen.WAL {
		names = append(names, PasteNoSpin)
	}
	for _, b := range c.Bars {
		names = append(names, b.Who, b.To)
	}
	names = append(append(names, c.also...), "io_uring")
	var once []string
	for _, n := range names {
		if !slices.Contains(once, n) {
			once = append(once, n)
		}
	}
	return once
}
