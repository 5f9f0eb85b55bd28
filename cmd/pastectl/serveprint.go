package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/pastenet/paste/internal/serve"
	"github.com/pastenet/paste/pasteapi"
)

// reporter prints what a server tells: a line for each event.
func (e env) reporter(asJSON bool) func(*serve.Event) error {
	return func(ev *serve.Event) error {
		var err error
		if asJSON {
			err = json.NewEncoder(e.stdout).Encode(ev)
		} else {
			_, err = fmt.Fprintln(e.stdout, eventLine(ev))
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		return nil
	}
}

// eventLine is an event for people.
func eventLine(ev *serve.Event) string {
	var b strings.Builder
	if s := ev.Port; ev.Event == serve.Ready {
		fmt.Fprintf(&b, "ready: %s nic=%s pool=%s (%s: %s)", ev.URL, describeNIC(s), s.Pool.Path, s.Pool.Backing, s.Pool.Durability)
		switch kv := ev.KV; {
		case ev.Redis != nil:
			fmt.Fprintf(&b, " keys=%d replayed=%d", ev.Redis.Keys, kv.Replayed)
		case kv != nil:
			fmt.Fprintf(&b, " keys=%d replayed=%d", kv.Keys, kv.Replayed)
		default:
			fmt.Fprintf(&b, " records=%d", ev.Records)
		}
		return b.String()
	}
	switch kv, r := ev.KV, ev.Redis; {
	case r != nil:
		fmt.Fprintf(&b, "stopped: %d commands on %d connections; %d keys, %d commits, %d checkpoints", r.Commands, r.Accepted, r.Keys, kv.Commits, kv.Checkpoints)
	case kv != nil:
		fmt.Fprintf(&b, "stopped: %d requests on %d connections; %d keys, %d puts, %d deletes, %d commits, %d checkpoints",
			ev.HTTP.Requests, ev.HTTP.Accepted, kv.Keys, kv.Puts, kv.Deletes, kv.Commits, kv.Checkpoints)
	default:
		fmt.Fprintf(&b, "stopped: %d requests on %d connections, %d bodies stored (%s)",
			ev.HTTP.Requests, ev.HTTP.Accepted, ev.HTTP.Stored, sizeFlag(min(ev.HTTP.StoredBytes, math.MaxInt64)).Human())
	}
	s := ev.Port.Stats
	fmt.Fprintf(&b, "; %d payloads steered, %d copied, %d read; %d system calls", s.Steered, s.Copied, s.Read, s.Syscalls)
	return b.String()
}

// describeNIC says which way payload comes.
func describeNIC(s *pasteapi.Status) string {
	if s.NIC == "" {
		return "none (nothing is steered)"
	}
	if !s.Receive.Steered {
		return fmt.Sprintf("%s (not steered: %s)", s.NIC, s.Receive.Why)
	}
	var modes []string
	for _, q := range s.Queues {
		mode := q.Mode.String()
		if len(modes) == 0 || modes[len(modes)-1] != mode {
			modes = append(modes, mode)
		}
	}
	return fmt.Sprintf("%s (%s, %s)", s.NIC, s.XDP, strings.Join(modes, "/"))
}
