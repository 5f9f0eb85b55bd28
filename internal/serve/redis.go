package serve

import (
	"context"
	"errors"

	"github.com/pastenet/paste/internal/redisd"
	"github.com/pastenet/paste/internal/redisd/store"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// Redis serves keys and values to clients of Redis, like HTTP.
func Redis(ctx context.Context, cfg Config) error {
	// What Redis writes to a file on tmpfs may stay in the CPU's caches as well.
	cfg.Pool.NoVainFlush = true
	return run(ctx, cfg, func(cfg *Config, pool *pmem.Pool) (*service, error) {
		db, err := store.Open(pool, cfg.Redis.Verify)
		if err != nil {
			return nil, err
		}
		srv, err := redisd.New(cfg.Redis, db)
		if err != nil {
			return nil, errors.Join(err, db.Close())
		}
		return &service{
			name: "redis", scheme: "redis", addr: srv.Addr(),
			run: func(ctx context.Context, cfg *Config, port *pasteapi.Port) error {
				return onRings(cfg, port, nil, func(rings ...redisd.Ring) error { return srv.Run(ctx, rings...) })
			},
			describe: func(e *Event) {
				stats, kv := srv.Stats(), db.Stats()
				e.Redis, e.KV = &stats, &kv
			},
			close: func() error { return errors.Join(srv.Close(), db.Close()) },
		}, nil
	})
}
