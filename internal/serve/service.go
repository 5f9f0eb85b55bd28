package serve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/internal/kvd"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

// service is what requests mean, and the server that answers them.
type service struct {
	name      string // of the command that serves it
	scheme    string // of its URL, without an "s"
	encrypted bool
	addr      netip.AddrPort
	// run serves until the context is done, or the server failed.
	run func(ctx context.Context, cfg *Config, port *pasteapi.Port) error
	// describe adds to an event what only this service has.
	describe func(*Event)
	// close is called when the port is closed and the pool is not.
	close func() error
}

// overHTTP is a service whose requests come by HTTP.
func overHTTP(name string, srv *httpd.Server, describe func(*Event), close func() error) *service {
	return &service{
		name: name, scheme: "http", addr: srv.Addr(),
		run: func(ctx context.Context, cfg *Config, port *pasteapi.Port) error {
			return onRings(cfg, port, []string{"http/1.1"}, func(rings ...httpd.Ring) error { return srv.Run(ctx, rings...) })
		},
		describe: func(e *Event) {
			describe(e)
			if e.Event != Ready {
				stats := srv.Stats()
				e.HTTP = &stats
			}
		},
		close: close,
	}
}

// HTTP serves a log: GET is answered from memory, and the body of a POST or PUT
// becomes a record. It returns when ctx is done, or when the server failed.
func HTTP(ctx context.Context, cfg Config) error {
	return run(ctx, cfg, func(cfg *Config, pool *pmem.Pool) (*service, error) {
		if err := claimLog(pool); err != nil {
			return nil, err
		}
		srv, err := httpd.New(cfg.HTTP, pool)
		if err != nil {
			return nil, err
		}
		found := pool.Log().Recovery().Records
		return overHTTP("http", srv, func(e *Event) {
			if e.Event == Ready {
				e.Records = found
			}
		}, srv.Close), nil
	})
}

// logPurpose is what a pool is for whose log holds the bodies of requests.
const logPurpose = "http"

// claimLog refuses a pool of a key-value store, which foreign records in its
// log would make useless. One that was made before pools had a purpose is known
// by its root.
func claimLog(pool *pmem.Pool) error {
	if _, ok := pool.Root(kv.RootName); ok && pool.Purpose() == "" {
		return fmt.Errorf("%w: %s holds a key-value store; name another file", pmem.ErrPurpose, pool.Path())
	}
	return pool.Claim(logPurpose)
}

// KV serves a key-value store, like HTTP. With verify values are compared with
// their checksums before they are sent.
func KV(ctx context.Context, cfg Config, verify bool) error {
	return run(ctx, cfg, func(cfg *Config, pool *pmem.Pool) (*service, error) {
		store, err := kv.Open(pool, kv.Options{Verify: verify})
		if err != nil {
			return nil, err
		}
		srv, err := kvd.New(cfg.HTTP, store)
		if err != nil {
			return nil, errors.Join(err, store.Close())
		}
		return overHTTP("kv", srv, func(e *Event) {
			stats := store.Stats()
			e.KV = &stats
		}, func() error { return errors.Join(srv.Close(), store.Close()) }), nil
	})
}
