package serve

import (
	"context"
	"errors"
	"fmt"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/internal/interrupt"
	"github.com/pastenet/paste/internal/tlsring"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// Config of a server process.
type Config struct {
	HTTP httpd.Config
	Pool Pool
	// TLS, if not nil, is the certificate by which all connections are encrypted.
	TLS *tlsring.Certificate
	// Port is how the pool's buffers are filled; its Pool is run's to
	// set.
	Port pasteapi.Options
	// Report gets Ready before the first request is served, and Stopped when the
	// last one has been. An error of Ready's ends the server.
	Report func(*Event) error
}

// run is the life of a server: open makes what answers its requests.
func run(ctx context.Context, cfg Config, open func(*Config, *pmem.Pool) (*service, error)) (err error) {
	pool, err := cfg.Pool.open(ctx)
	if err != nil {
		return err
	}
	started := false
	cfg.HTTP.Encrypted = cfg.TLS != nil
	svc, err := interrupt.Wait(ctx,
		func() (*service, error) { return open(&cfg, pool) },
		func(svc *service) { _ = errors.Join(svc.close(), closePool(pool, false)) })
	if errors.Is(err, interrupt.ErrInterrupted) {
		return fmt.Errorf("%w while pool %s was read", err, pool.Path())
	}
	defer func() {
		err = errors.Join(err, closePool(pool, started))
		if lost := pool.Err(); lost != nil {
			err = lost // whatever else has failed, failed because of that
		}
	}()
	if err != nil {
		return err
	}
	svc.encrypted = cfg.TLS != nil
	defer func() { err = errors.Join(err, svc.close()) }()
	port, err := openPort(ctx, &cfg, pool, svc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, port.Close()) }()

	if err := cfg.Report(svc.event(Ready, port)); err != nil {
		return fmt.Errorf("say that the server is ready: %w", err)
	}
	started = true
	err = svc.run(ctx, &cfg, port, pool)
	last := svc.event(Stopped, port)
	stats := svc.srv.Stats()
	last.HTTP = &stats
	return errors.Join(err, cfg.Report(last))
}

// openPort opens the port that a server receives from.
func openPort(ctx context.Context, cfg *Config, pool *pmem.Pool, svc *service) (*pasteapi.Port, error) {
	opts := cfg.Port
	opts.Pool = pool
	port, err := pasteapi.Open(ctx, opts)
	if err != nil {
		return nil, err
	}
	if err = checkPort(cfg, port.Status()); err == nil {
		err = port.Steer(svc.srv.Addr().Port())
	}
	if err != nil {
		return nil, errors.Join(err, port.Close())
	}
	return port, nil
}

// checkPort refuses a port that is not as asked for.
func checkPort(cfg *Config, s pasteapi.Status) error {
	if !s.Receive.Steered {
		return nil
	}
	if n := len(s.Queues); cfg.Port.Rings > n {
		return fmt.Errorf("%d rings for %d RX queues of %s: a ring without a queue gets no connections; ask for at most %d, or give the interface more queues (`ethtool -L`)",
			cfg.Port.Rings, n, s.NIC, n)
	}
	if want := cfg.Port.XDPMode; want != bpf.ModeAuto && want != s.XDP {
		return fmt.Errorf("interface %s: %w: it is in %s mode; detach it before it is attached in %s mode", s.NIC, bpf.ErrOtherMode, s.XDP, want)
	}
	return nil
}

func (s *service) event(what string, port *pasteapi.Port) *Event {
	status := port.Status()
	scheme := "http://"
	if s.encrypted {
		scheme = "https://"
	}
	e := &Event{Event: what, URL: scheme + s.srv.Addr().String(), Port: &status}
	s.describe(e)
	return e
}

// run serves on the rings of a port.
func (s *service) run(ctx context.Context, cfg *Config, port *pasteapi.Port, pool *pmem.Pool) (err error) {
	rings := make([]httpd.Ring, port.NumRings())
	for i := range rings {
		if cfg.TLS == nil {
			rings[i] = port.Ring(i)
			continue
		}
		r, newErr := tlsring.New(port.Ring(i), pool, cfg.TLS.Config("http/1.1"))
		if newErr != nil {
			return newErr
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		rings[i] = r
	}
	return s.srv.Run(ctx, rings...)
}
