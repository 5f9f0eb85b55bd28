package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/pastenet/paste/internal/framelog"
	"github.com/pastenet/paste/internal/serve"
	"github.com/pastenet/paste/internal/switchd"
	"github.com/pastenet/paste/netmap/portspec"
	"github.com/spf13/cobra"
)

func newSwitchCmd(e env) *cobra.Command {
	cfg := switchd.Config{}
	poolSize := sizeFlag(serve.DefaultPoolSize)
	onFull := "wrap"
	asJSON := false
	cmd := &cobra.Command{
		Use:   "switch",
		Short: "Forward frames between interfaces, and write them down",
		Long: `Forward frames between ports, as a learning bridge does, and write every frame
into the log of a pool before it is sent.

A port is an interface, or one of netmap's names: netmap:eth0-1 for a queue,
netmap:eth0^ for the kernel's side of it, netmap:eth0* for both. The kernel sees
no frame of an interface that is a port, unless its side is a port as well.

--log-mode zero-copy leaves each frame where the interface put it, copy copies it
into the log, off writes nothing and needs no pool. "pastectl pool log --pcapng"
makes a capture file of the log.

On a veth, switch off checksum offload at the far ends (ethtool -K DEV tx off):
frames with checksums that the sender left to be filled in reach the other port
as they are.

Prints one line when it is ready, and one when it has ended. SIGINT, SIGTERM or
SIGHUP ends it. The interfaces are then as they were, however it ends.`,
		Example: `  pastectl switch --port eth0 --port eth1 --log /dev/shm/frames
  pastectl pool log /dev/shm/frames --pcapng > frames.pcapng`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := completeSwitch(cmd, e, &cfg, onFull); err != nil {
				return newUsageError(cmd, err)
			}
			if cmd.Flag("pool-size").Changed {
				cfg.Pool.Size = int64(poolSize)
			}
			cfg.Logger = slog.New(slog.NewTextHandler(e.stderr, nil))
			cfg.Report = e.switchReporter(asJSON)
			if err := switchd.Run(cmd.Context(), cfg); err != nil {
				return withHint(fmt.Errorf("switch: %w", err), "")
			}
			return nil
		},
	}
	cfg.Mode = framelog.ZeroCopy
	f := cmd.Flags()
	f.StringArrayVar(&cfg.Ports, "port", nil, "a port; give two or more")
	f.StringVar(&cfg.Pool.Path, "log", "", "pool whose log gets the frames; it is created if there is none")
	f.Var(choice[framelog.Mode]{&cfg.Mode, framelog.ParseMode, "off|copy|zero-copy"}, "log-mode", "how frames get into the log")
	f.StringVar(&onFull, "on-full", onFull, "when pool or log are full: wrap (drop the older half of the log), or keep (write no more)")
	f.Var(&poolSize, "pool-size", "size of the pool if it has to be created; one that exists must have it if it is given")
	f.BoolVar(&cfg.Pool.AllowForeign, "allow-foreign-pool", false, "use a pool file that another user owns or may write to")
	f.IntVar(&cfg.Slots, "slots", 1024, "slots of each ring, from 64 to 32768")
	f.Var(xdpModeFlag(&cfg.XDPMode), "xdp-mode", "how to attach the interfaces")
	f.BoolVar(&asJSON, "json", false, "print JSON, one object per line")
	return cmd
}

// completeSwitch checks the flags, and makes names of interfaces names of ports.
func completeSwitch(cmd *cobra.Command, e env, cfg *switchd.Config, onFull string) error {
	given := func(flag string) bool { return cmd.Flag(flag).Changed }
	off := cfg.Mode == framelog.Off
	switch {
	case len(cfg.Ports) < 2:
		return errors.New("missing --port: a switch has two ports or more")
	case !off && cfg.Pool.Path == "":
		return errors.New("missing --log; or give --log-mode off")
	case off && (given("log") || given("on-full") || given("pool-size") || given("allow-foreign-pool")):
		return errors.New("--log-mode off writes nothing, so there is nothing for --log, --on-full, --pool-size and --allow-foreign-pool to say")
	case onFull != "wrap" && onFull != "keep":
		return fmt.Errorf("unknown --on-full %q: must be wrap or keep", onFull)
	case cfg.Slots < 64 || cfg.Slots > 32768:
		return fmt.Errorf("--slots %d: must be from 64 to 32768", cfg.Slots)
	}
	cfg.Keep = onFull == "keep"
	for i, name := range cfg.Ports {
		if !strings.Contains(name, ":") {
			name = "netmap:" + name
		}
		if _, err := portspec.Parse(name); err != nil {
			fmt.Fprintln(e.stderr, portspec.Explain(err))
			return err
		}
		cfg.Ports[i] = name
	}
	return nil
}

// switchReporter prints what a switch tells: a line for each event.
func (e env) switchReporter(asJSON bool) func(*switchd.Event) error {
	return func(ev *switchd.Event) error {
		var err error
		if asJSON {
			err = json.NewEncoder(e.stdout).Encode(ev)
		} else {
			_, err = fmt.Fprintln(e.stdout, switchLine(ev))
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		return nil
	}
}

// switchLine is an event for people.
func switchLine(ev *switchd.Event) string {
	var b strings.Builder
	if ev.Event == switchd.Ready {
		b.WriteString("ready:")
		for _, p := range ev.Ports {
			b.WriteString(" " + p.Name)
		}
		fmt.Fprintf(&b, " log=%s", ev.Mode)
		if ev.Pool != "" {
			fmt.Fprintf(&b, " pool=%s records=%d", ev.Pool, ev.Records)
		}
		return b.String()
	}
	b.WriteString("stopped:")
	for i, p := range ev.Ports {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %s in %d out %d dropped %d", p.Name, p.In, p.Out, p.Dropped)
	}
	if l := ev.Log; l != nil {
		fmt.Fprintf(&b, "; %d frames written down in %d commits, %d old records dropped, %d frames had no room", l.Frames, l.Commits, l.Wrapped, l.Full)
	}
	lost := uint64(0)
	for _, r := range ev.Rings {
		for _, rx := range r.RX {
			lost += rx.Dropped()
		}
	}
	if lost > 0 {
		fmt.Fprintf(&b, "; %d frames lost on receive", lost)
	}
	return b.String()
}
