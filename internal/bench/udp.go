package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/pastenet/paste/internal/contender"
	"github.com/pastenet/paste/internal/loadgen"
	"github.com/pastenet/paste/internal/udpload"
)

// PasteNAPI is PASTE with NAPIPoll: each of its sleeps begins with polling the NIC's
// queue.
const PasteNAPI = "paste-napi"

// UDPNames lists the contenders of RunUDP.
func UDPNames() []string {
	names := []string{Paste, PasteNAPI}
	for _, k := range contender.Datagrams() {
		names = append(names, string(k))
	}
	return names
}

// RunUDP measures servers of datagrams, which send back what comes (loadgen.Echo) or
// count it (loadgen.Sink), as cfg.Workload says. cfg.Custom is filled in here.
func RunUDP(ctx context.Context, cfg Config) (*Report, error) {
	raw := contender.Echo
	switch {
	case cfg.Workload != loadgen.Echo && cfg.Workload != loadgen.Sink:
		return nil, fmt.Errorf("bench udp: unknown workload %q: want echo or sink", cfg.Workload)
	case cfg.Size < udpload.MinSize || cfg.Size > udpload.MaxSize:
		return nil, fmt.Errorf("bench udp: datagrams of %d bytes: want %d to %d", cfg.Size, udpload.MinSize, udpload.MaxSize)
	case cfg.BusyPoll || cfg.Rate > 0:
		return nil, errors.New("bench udp: neither a rate can be offered, nor does it poll without sleeping")
	case cfg.Workload == loadgen.Sink:
		raw = contender.Sink
	}
	cfg.Custom = &Custom{
		Names: UDPNames(),
		Title: fmt.Sprintf("datagrams, %s", cfg.Workload),
		Load:  func(_ string, _ int, c *loadgen.Config) { c.Workload = cfg.Workload },
		Run:   udpload.Run,
		Command: func(name, exe string, addr netip.AddrPort, nic, dir string) []string {
			serve := ServeConfig{Kind: contender.Kind(name), Addr: addr, ResponseBytes: cfg.Size, MessageBytes: cfg.Size, Raw: raw}
			if isPaste(name) {
				serve.Kind, serve.UDP, serve.NIC = Paste, true, nic
				if name == PasteNAPI {
					serve.NAPIPoll = 100 * time.Microsecond
				}
				serve.Pool, serve.PoolSize = filepath.Join(dir, "pool"), cfg.PoolSize
			}
			return append([]string{exe}, serve.args()...)
		},
		Prepare: func(context.Context, string, netip.AddrPort) error { return nil },
	}
	return Run(ctx, cfg)
}
