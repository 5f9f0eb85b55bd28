package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/pastenet/paste/internal/contender"
	"github.com/pastenet/paste/internal/serve"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// ServeConfig is what a contender's process is told on its command line.
type ServeConfig struct {
	Kind          contender.Kind `json:"kind"`
	Addr          netip.AddrPort `json:"addr"`
	ResponseBytes int            `json:"response_bytes"`
	MessageBytes  int            `json:"message_bytes,omitempty"`
	Raw           contender.Raw  `json:"raw,omitempty"`
	NIC           string         `json:"nic,omitempty"` // of PASTE
	BusyPoll      bool           `json:"busy_poll"`
	// Receive says which ways in PASTE uses.
	Receive pasteapi.ReceiveMode `json:"receive"`
	// UDP has PASTE serve datagrams, and poll the NIC for so long in each sleep.
	UDP      bool          `json:"udp,omitempty"`
	NAPIPoll time.Duration `json:"napi_poll,omitempty"`
	// Stages has PASTE measure its stages; and then, if it steers, each payload.
	Stages   bool   `json:"stages,omitempty"`
	Pool     string `json:"pool,omitempty"` // empty: bodies are forgotten
	PoolSize int64  `json:"pool_size,omitempty"`
}

// counts is what a server has done in its whole life.
type counts struct {
	Requests uint64 `json:"requests"`
	Syscalls uint64 `json:"syscalls"`
	// Stats of a ring that measures its stages.
	Stats *pasteapi.Stats `json:"stats,omitempty"`
}

// lastLine is the last line that a server writes to its standard output: counts, or
// the "stopped" event of `serve http --json`.
type lastLine struct {
	counts
	serve.Event
}

func parseCounts(line []byte) (counts, bool) {
	var l lastLine
	if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &l) != nil {
		return counts{}, false
	}
	if l.Port != nil && l.HTTP != nil {
		return counts{Requests: l.HTTP.Requests, Syscalls: l.Port.Stats.Syscalls}, true
	}
	return l.counts, true
}

func (s *ServeConfig) args() []string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // no value of these types fails
	}
	return []string{"bench", "server", string(b)}
}

// Server is a contender that this program has in addition.
type Server struct {
	Kind contender.Kind
	Run  func(ctx context.Context, cfg *contender.Config) error
}

// Serve runs a contender as told by args, which it takes from ServeConfig, until
// ctx ends. It writes one line to out when it is ready and one when it is done.
func Serve(ctx context.Context, args []string, out io.Writer, others ...Server) error {
	var s ServeConfig
	if len(args) != 1 {
		return errors.New("bench server: want one argument")
	}
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return fmt.Errorf("bench server: %w", err)
	}
	stats := new(contender.Stats)
	var ring *pasteapi.Stats
	cfg := contender.Config{Kind: s.Kind, Addr: s.Addr, ResponseBytes: s.ResponseBytes, MessageBytes: s.MessageBytes, Raw: s.Raw, BusyPoll: s.BusyPoll, Stats: stats,
		Ready: func(a netip.AddrPort) { fmt.Fprintf(out, "listening on %s\n", a) }}
	if s.Kind == Paste {
		cfg.Other = func(ctx context.Context, cfg *contender.Config) (err error) {
			if s.UDP {
				return runRingUDP(ctx, cfg, &s)
			}
			ring, err = runRing(ctx, cfg, &s)
			return err
		}
	}
	for _, o := range others {
		if o.Kind == s.Kind {
			cfg.Other = o.Run
		}
	}
	if s.Pool != "" {
		pool, err := pmem.Create(s.Pool, pmem.Options{Size: s.PoolSize})
		if err != nil {
			return fmt.Errorf("bench server: %w", err)
		}
		defer pool.Close()
		// All page faults now. PASTE's pool is faulted in when it becomes a
		// UMEM; a contender shall not pay for that while it is measured.
		if err := unix.Madvise(pool.Mem(), unix.MADV_POPULATE_WRITE); err != nil {
			return fmt.Errorf("bench server: populate pool: %w", err)
		}
		cfg.Pool = pool
	}
	if err := contender.Run(ctx, cfg); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(counts{Requests: stats.Requests.Load(), Syscalls: stats.Syscalls.Load(), Stats: ring})
}
