package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/internal/intake"
	"github.com/spf13/cobra"
)

// retainOptions are the flags that say how long `serve http` keeps what.
type retainOptions struct{ size sizeFlag }

func (o *retainOptions) define(cmd *cobra.Command, cfg *httpd.Config) {
	f := cmd.Flags()
	f.Var(&o.size, "retain-size", "drop the oldest records when all of them have more bytes than this, but none that a cursor protects")
	f.DurationVar(&cfg.Retain.Age, "retain-age", 0, "drop records that are older than this, to a 64th of it or to a second, but none that a cursor protects; 0: never")
	f.BoolVar(&cfg.Retain.Read, "drop-acknowledged", false, "drop what all cursors have acknowledged")
	f.DurationVar(&cfg.Keys.Window, "idempotency-window", intake.DefaultWindow, "how long an Idempotency-Key is known")
	f.Uint64Var(&cfg.Keys.Keys, "idempotency-keys", 0, "how many of them, the newest; 0: one for each 4 KiB of the pool, which takes a sixteenth of it")
}

// complete verifies the flags.
func (o *retainOptions) complete(cmd *cobra.Command, cfg *httpd.Config) error {
	cfg.Retain.Bytes = int64(o.size)
	flags := []string{"retain-size", "retain-age", "drop-acknowledged", "idempotency-window", "idempotency-keys"}
	for _, name := range flags {
		if cmd.Flag(name).Changed && cfg.Persist == httpd.PersistNone {
			return fmt.Errorf("--persist none stores nothing, so there is nothing for --%s to say", name)
		}
	}
	switch {
	case cmd.Flag("retain-size").Changed && o.size <= 0:
		return errors.New("--retain-size must be positive; without it any number of bytes is kept")
	case cfg.Retain.Age != 0 && cfg.Retain.Age < time.Second:
		return errors.New("--retain-age must be at least a second; without it records of any age are kept")
	case cfg.Keys.Window <= 0:
		return errors.New("--idempotency-window must be positive")
	}
	return nil
}
