package ringserve

import (
	"log/slog"
	"time"
)

// Notes writes to the log, and not too often.
type Notes struct {
	Log    *slog.Logger
	warned time.Time
	muted  int // warnings not given since then
}

// Warn logs at most once per second.
func (n *Notes) Warn(msg string, args ...any) {
	now := time.Now()
	if now.Sub(n.warned) < time.Second {
		n.muted++
		return
	}
	if n.muted > 0 {
		args = append(args, "not_shown", n.muted)
	}
	n.warned, n.muted = now, 0
	n.Log.Warn(msg, args...)
}
