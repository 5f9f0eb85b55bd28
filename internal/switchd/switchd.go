// Package switchd is the main of `pastectl switch`: a learning bridge between raw
// ports that writes down what it forwards.
package switchd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/framelog"
	"github.com/pastenet/paste/internal/serve"
	"github.com/pastenet/paste/netmap"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/xsk"
)

// Config of a switch.
type Config struct {
	// Ports are netmap's names of them, or a NIC's alone.
	Ports []string
	// Mode says how frames get into the log; framelog.Off needs no pool.
	Mode framelog.Mode
	// Keep: a full log keeps what it has; otherwise the older half of it goes.
	Keep bool
	// Pool has the log, and all buffers of the ports.
	Pool     serve.Pool
	XDPMode  bpf.XDPMode
	BindMode xsk.BindMode
	Slots    int // per ring; 0 = 1024
	Logger   *slog.Logger
	// Report gets Ready before the first frame is forwarded, and Stopped.
	Report func(*Event) error
}

// What an Event says.
const (
	Ready   = "ready"
	Stopped = "stopped"
)

// Event is what a switch tells about itself, and one line of its --json.
type Event struct {
	Event string               `json:"event"` // Ready or Stopped
	Ports []netmap.SwitchStats `json:"ports"`
	// Records found in the log when the pool was opened.
	Records uint64          `json:"records,omitempty"`
	Pool    string          `json:"pool,omitempty"`
	Mode    framelog.Mode   `json:"log_mode"`
	Log     *framelog.Stats `json:"log,omitempty"`   // of Stopped
	Rings   []PortRings     `json:"rings,omitempty"` // of Stopped
}

// PortRings are the counters of a port's rings.
type PortRings struct {
	Port string `json:"port"`
	netmap.Stats
}

// Run forwards until ctx is done.
func Run(ctx context.Context, cfg Config) (err error) {
	if len(cfg.Ports) < 2 {
		return fmt.Errorf("%d ports: a switch needs two", len(cfg.Ports))
	}
	d := &daemon{cfg: cfg}
	if cfg.Slots == 0 {
		d.cfg.Slots = 1024
	}
	started := false
	if cfg.Mode != framelog.Off {
		pool, err := cfg.Pool.Open(ctx)
		if err != nil {
			return err
		}
		d.pool = pool
		defer func() {
			err = errors.Join(err, serve.ClosePool(pool, started))
			if lost := pool.Err(); lost != nil {
				err = lost // whatever else has failed, failed because of that
			}
		}()
	}
	if err := d.open(ctx); err != nil {
		return errors.Join(err, d.close())
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := cfg.Report(d.event(Ready)); err != nil {
		return fmt.Errorf("say that the switch is ready: %w", err)
	}
	started = true
	err = d.sw.Run(ctx)
	last := d.event(Stopped)
	if d.log != nil {
		err = errors.Join(err, d.log.Commit())
		st := d.log.Stats()
		last.Log = &st
	}
	for _, p := range d.ports {
		if st, e := p.Stats(); e == nil {
			last.Rings = append(last.Rings, PortRings{p.Name(), st})
		}
	}
	return errors.Join(err, cfg.Report(last))
}

// daemon is what a running switch has.
type daemon struct {
	cfg   Config
	pool  *pmem.Pool
	mem   *netmap.Memory
	log   *framelog.Writer
	sw    *netmap.Switch
	ports []*netmap.Port
	found uint64 // records
}

func (d *daemon) open(ctx context.Context) (err error) {
	o := netmap.SwitchOptions{Logger: d.cfg.Logger}
	if d.pool != nil {
		d.found = d.pool.Log().Recovery().Records
		if d.mem, err = netmap.PoolMemory(d.pool, netmap.MemoryOptions{}); err != nil {
			return err
		}
		// As many buffers of TX slots may be in the log, and need others in their places.
		reserve := len(d.cfg.Ports)*4*d.cfg.Slots + 256
		if need := len(d.cfg.Ports)*3*d.cfg.Slots + reserve; d.pool.Free() < need && d.found == 0 {
			return fmt.Errorf("pool %s has %d free frames, and %d ports with %d slots and a log need %d: make it larger, or --slots smaller: %w",
				d.pool.Path(), d.pool.Free(), len(d.cfg.Ports), d.cfg.Slots, need, pmem.ErrSize)
		}
		if d.log, err = framelog.NewWriter(d.pool, d.cfg.Mode, d.cfg.Keep, reserve); err != nil {
			return err
		}
		o.Log = d.log
	} else if d.mem, err = netmap.NewMemory(netmap.MemoryOptions{Buffers: max(len(d.cfg.Ports)*8*d.cfg.Slots, 4096)}); err != nil {
		return err
	}
	if d.sw, err = netmap.NewSwitch(o); err != nil {
		return err
	}
	for _, name := range d.cfg.Ports {
		p, err := netmap.Open(ctx, name, netmap.Options{
			Memory: d.mem, Slots: d.cfg.Slots, XDPMode: d.cfg.XDPMode, BindMode: d.cfg.BindMode, Logger: d.cfg.Logger,
		})
		if err != nil {
			return err
		}
		if err := d.sw.Attach(p); err != nil {
			return errors.Join(err, p.Close())
		}
		d.ports = append(d.ports, p)
	}
	return nil
}

func (d *daemon) close() error {
	var errs []error
	if d.sw != nil {
		errs = append(errs, d.sw.Close())
	}
	if d.mem != nil {
		errs = append(errs, d.mem.Close())
	}
	return errors.Join(errs...)
}

func (d *daemon) event(what string) *Event {
	e := &Event{Event: what, Ports: d.sw.Stats(), Mode: d.cfg.Mode, Records: d.found}
	if d.pool != nil {
		e.Pool = d.pool.Path()
	}
	return e
}
