package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pastenet/paste/internal/redisd"
	"github.com/pastenet/paste/internal/serve"
	"github.com/spf13/cobra"
)

// redisOptions are the flags of `serve redis` alone.
type redisOptions struct {
	password     string
	passwordFile string
	maxBulk      sizeFlag
}

func newServeRedisCmd(e env) *cobra.Command {
	o := newServeOptions(0)
	var r redisOptions
	cfg := &o.cfg.Redis
	cmd := &cobra.Command{
		Use:   "redis",
		Short: "Serve keys and values to clients of Redis",
		Long: `Serve strings, hashes and streams to clients of Redis (RESP2 and RESP3), from
the buffers of a pool file. docs/redis.md has the commands, and what differs.

Every change is durable before it is answered, as with Redis' "appendfsync
always", and what comes together shares one commit. The pool is the memory: when
it is full, what would need more gets the error that Redis has for that
("OOM command not allowed ..."), everything stored is still served, and DEL, and
keys that expire, make room.

Who can connect can read and change everything: listen on an address that only
friends reach, or ask for a password (--requirepass-file).
` + serveCommon,
		Example: `  pastectl serve redis --listen 127.0.0.1:6379 --pool /dev/shm/redis
  redis-cli set greeting hello`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			idle := o.cfg.HTTP.IdleTimeout
			if err := o.completeCommon(cmd, e); err != nil {
				return err
			}
			if err := r.complete(cmd, cfg); err != nil {
				return newUsageError(cmd, err)
			}
			http := &o.cfg.HTTP
			cfg.Addr, cfg.MaxConns, cfg.CPUs, cfg.Logger = http.Addr, http.MaxConns, http.CPUs, http.Logger
			cfg.IdleTimeout, cfg.StallTimeout, cfg.DrainTimeout = idle, http.StallTimeout, http.DrainTimeout
			if err := serve.Redis(cmd.Context(), o.cfg); err != nil {
				return withHint(fmt.Errorf("serve redis: %w", err), o.cfg.Port.NIC)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.cfg.HTTP.MaxConns, "max-connections", redisd.DefaultMaxConns, "connections per ring, beyond which clients are refused")
	f.DurationVar(&o.cfg.HTTP.IdleTimeout, "idle-timeout", 0, "how long a connection may wait for its next command; 0: for ever")
	f.StringVar(&r.password, "requirepass", "", "password that clients have to give; other users of this machine can see it, so better --requirepass-file")
	f.StringVar(&r.passwordFile, "requirepass-file", "", "file whose first line is the password that clients have to give")
	f.Var(&r.maxBulk, "max-bulk", "size of the longest argument (proto-max-bulk-len); an eighth of the pool, at most 512MiB, if it is not given")
	f.BoolVar(&cfg.Verify, "verify", false, "compare strings with their checksums before they are sent")
	o.defineCommon(cmd)
	return cmd
}

// complete makes a configuration of the flags.
func (r *redisOptions) complete(cmd *cobra.Command, cfg *redisd.Config) error {
	given := func(flag string) bool { return cmd.Flag(flag).Changed }
	cfg.MaxBulk, cfg.Password = int(r.maxBulk), r.password
	switch {
	case given("requirepass") && given("requirepass-file"):
		return errors.New("--requirepass and --requirepass-file both say the password: give one of them")
	case given("requirepass") && r.password == "":
		return errors.New("--requirepass is empty: leave it out to ask for none")
	case given("max-bulk") && r.maxBulk == 0:
		return errors.New("--max-bulk must be positive")
	case !given("requirepass-file"):
		return nil
	}
	b, err := os.ReadFile(r.passwordFile)
	if err != nil {
		return fmt.Errorf("--requirepass-file: %w", err)
	}
	cfg.Password, _, _ = strings.Cut(string(b), "\n")
	if cfg.Password = strings.TrimSuffix(cfg.Password, "\r"); cfg.Password == "" {
		return fmt.Errorf("--requirepass-file: the first line of %s is empty", r.passwordFile)
	}
	return nil
}
