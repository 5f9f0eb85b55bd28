package serve

import (
	"context"
	"errors"
	"fmt"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/internal/interrupt"
	"github.com/pastenet/paste/internal/redisd"
	"github.com/pastenet/paste/internal/tlsring"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// Config of a server process.
type Config struct {
	HTTP  httpd.Config
	Redis redisd.Config
	Pool  Pool
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
	pool, err := cfg.Pool.Open(ctx)
	if err != nil {
		return err
	}
	started := false
	cfg.HTTP.Encrypted, cfg.Redis.Encrypted = cfg.TLS != nil, cfg.TLS != nil
	svc, err := interrupt.Wait(ctx,
		func() (*service, error) { return open(&cfg, pool) },
		func(svc *service) { _ = errors.Join(svc.close(), ClosePool(pool, false)) })
	if errors.Is(err, interrupt.ErrInterrupted) {
		return fmt.Errorf("%w while pool %s was read", err, pool.Path())
	}
	defer func() {
		err = errors.Join(err, ClosePool(pool, started))
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
	port.Describe(svc.app)
	err = svc.run(ctx, &cfg, port)
	last := svc.event(Stopped, port)
	return errors.Join(err, cfg.Report(last))
}

// openPort opens the port that a server receives from.
func openPort(ctx context.Context, cfg *Config, pool *pmem.Pool, svc *service) (*pasteapi.Port, error) {
	cfg.Port.Pool = pool
	port, err := pasteapi.Open(ctx, cfg.Port)
	if err != nil {
		return nil, err
	}
	if err = checkPort(cfg, port.Status()); err == nil {
		err = port.Steer(svc.addr.Port())
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

// url is where the server is.
func (s *service) url() string {
	scheme := s.scheme
	if s.encrypted {
		scheme += "s"
	}
	return scheme + "://" + s.addr.String()
}

func (s *service) event(what string, port *pasteapi.Port) *Event {
	status := port.Status()
	status.App = nil // what it says is in the event
	e := &Event{Event: what, URL: s.url(), Port: &status}
	s.describe(e)
	return e
}

// What decrypts a ring has to be all that a server asks of one.
var (
	_ httpd.Ring  = (*tlsring.Ring)(nil)
	_ redisd.Ring = (*tlsring.Ring)(nil)
)

// onRings calls serve with the rings of a port, or with what decrypts them.
// protocols are those that TLS offers.
func onRings[R any](cfg *Config, port *pasteapi.Port, protocols []string, serve func(...R) error) (err error) {
	rings := make([]R, port.NumRings())
	for i := range rings {
		if cfg.TLS == nil {
			rings[i] = any(port.Ring(i)).(R)
			continue
		}
		r, newErr := tlsring.New(port.Ring(i), cfg.Port.Pool, cfg.TLS.Config(protocols...))
		if newErr != nil {
			return newErr
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		rings[i] = any(r).(R)
	}
	return serve(rings...)
}
