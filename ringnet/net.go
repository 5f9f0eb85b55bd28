package ringnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// DefaultPoolSize is the size in bytes of the pool that Open makes when it is given
// none.
const DefaultPoolSize = 64 << 20

// Net is a port with a pump for each of its rings. Its methods may be called from any
// goroutine.
type Net struct {
	port  *pasteapi.Port
	pool  *pmem.Pool
	log   *slog.Logger
	pumps []*pump
	next  atomic.Uint32 // pump for the next connection that chooses none
	owned []func() error

	mu        sync.Mutex
	listeners map[*Listener]struct{}
	inUse     int  // connections and listeners
	alone     bool // ends when nothing is in use any more
	closed    bool
	ended     chan struct{} // Close has returned
	endErr    error         // valid then
	warned    time.Time
}

// Open opens a port and serves all of its rings. Without a pool (Options.Pool) it makes
// one in memory. Close closes what it has made. It must be called, with a NIC, on a
// thread that is in the NIC's network namespace.
func Open(ctx context.Context, o pasteapi.Options) (*Net, error) {
	var owned []func() error
	if o.Pool == nil {
		pool, err := pmem.NewMemory("ringnet", pmem.Options{Size: DefaultPoolSize})
		if err != nil {
			return nil, fmt.Errorf("open ring network: %w", err)
		}
		o.Pool = pool
		owned = append(owned, pool.Close)
	}
	port, err := pasteapi.Open(ctx, o)
	if err != nil {
		return nil, errors.Join(err, closeAll(owned))
	}
	owned = append(owned, port.Close)
	n, err := New(port, o.Pool, o.Logger)
	if err != nil {
		return nil, errors.Join(err, closeAll(owned))
	}
	n.owned = owned
	return n, nil
}

// New serves all rings of a port, which was opened with that pool. The rings are the
// Net's until Close, and the port must not be closed before. log may be nil.
func New(port *pasteapi.Port, pool *pmem.Pool, log *slog.Logger) (*Net, error) {
	if log == nil {
		log = slog.Default()
	}
	n := &Net{port: port, pool: pool, log: log, listeners: map[*Listener]struct{}{}, ended: make(chan struct{})}
	for i := range port.NumRings() {
		p, err := newPump(n, port.Ring(i))
		if err != nil {
			for _, p := range n.pumps {
				p.sleep.close()
			}
			return nil, err
		}
		n.pumps = append(n.pumps, p)
	}
	for _, p := range n.pumps {
		go p.run()
	}
	return n, nil
}

// Port is the port that the Net serves, for its Status.
func (n *Net) Port() *pasteapi.Port { return n.port }

// Close closes all listeners and connections, and what Open has made. It may be called
// again. The error says also why a pump had failed.
func (n *Net) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		<-n.ended
		return n.endErr
	}
	n.closed = true
	var listeners []*Listener
	for l := range n.listeners {
		listeners = append(listeners, l)
	}
	n.mu.Unlock()
	defer close(n.ended)
	for _, l := range listeners {
		_ = l.Close() // it may be closed by now
	}
	var errs []error
	for _, p := range n.pumps {
		errs = append(errs, p.stop())
	}
	n.endErr = errors.Join(append(errs, closeAll(n.owned))...)
	return n.endErr
}

// closeAll closes in reverse order.
func closeAll(all []func() error) error {
	var errs []error
	for i := len(all) - 1; i >= 0; i-- {
		errs = append(errs, all[i]())
	}
	return errors.Join(errs...)
}

// pump chooses the pump of a connection that has none yet.
func (n *Net) pump() *pump { return n.pumps[int(n.next.Add(1))%len(n.pumps)] }

// entered and left count what uses the Net.
func (n *Net) entered() {
	n.mu.Lock()
	n.inUse++
	n.mu.Unlock()
}

func (n *Net) left() {
	n.mu.Lock()
	n.inUse--
	last := n.inUse == 0 && n.alone && !n.closed
	n.mu.Unlock()
	if last {
		go n.Close() // which waits for the caller, a pump
	}
}

// warn logs at most once a second.
func (n *Net) warn(what string, err error) {
	n.mu.Lock()
	now := time.Now()
	muted := now.Sub(n.warned) < time.Second
	if !muted {
		n.warned = now
	}
	n.mu.Unlock()
	if !muted {
		n.log.Warn(what, "err", err)
	}
}
