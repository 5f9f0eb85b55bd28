package loadgen

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// A server that stands still once: a closed loop notices it once for each
// connection; in an open loop every request that came meanwhile has waited.
func TestOpenLoopSeesEveryWait(t *testing.T) {
	const (
		rate     = 1000.0
		requests = 1000
		stall    = 500 * time.Millisecond
		conns    = 4
	)
	slow := func(t *testing.T, e Engine, rate float64) (r *Result, late int64) {
		var mu sync.Mutex
		served := 0
		addr := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if served++; served == 100 {
				time.Sleep(stall)
			}
			w.Header().Set("Content-Length", "0")
		})
		ctx, cfg, cancel := until(Config{Addr: addr, Workload: RPC, Connections: conns, Engine: e, Rate: rate}, requests)
		defer cancel()
		r, err := Run(ctx, cfg)
		qt.Assert(t, qt.IsNil(err))
		for _, b := range r.Latency.Distribution() {
			if b.From >= int64(stall/2) {
				late += b.Count
			}
		}
		return r, late
	}
	for _, e := range engines {
		t.Run(string(e), func(t *testing.T) {
			r, late := slow(t, e, rate)
			// Half of the stall is some 250 requests long.
			qt.Check(t, qt.IsTrue(late >= 100), qt.Commentf("%d of %d were late", late, r.Requests))
			qt.Check(t, qt.IsTrue(r.Queued >= 100), qt.Commentf("%d found no free connection", r.Queued))
			// The offered rate is not exceeded: 1000 requests take a second, and less than half
			// of it only once in more tries than anybody makes.
			qt.Check(t, qt.IsTrue(r.Elapsed > 500*time.Millisecond), qt.Commentf("%v", r.Elapsed))
			qt.Check(t, qt.Equals(uint64(r.Latency.TotalCount()), r.Requests))
		})
	}
}

// Connections that are lost and made again keep an open loop going, and its list of
// free ones does not grow.
func TestOpenLoopReconnects(t *testing.T) {
	served := 0
	var mu sync.Mutex
	addr := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		served++
		drop := served%7 == 0
		mu.Unlock()
		if drop {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Length", "0")
	})
	for _, e := range engines {
		t.Run(string(e), func(t *testing.T) {
			ctx, cfg, cancel := until(Config{Addr: addr, Workload: RPC, Connections: 5, Engine: e, Rate: 2000, Reconnect: true}, 500)
			defer cancel()
			r, err := Run(ctx, cfg)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.IsTrue(r.Acked >= 500), qt.Commentf("%d", r.Acked))
			qt.Check(t, qt.IsTrue(r.Reconnects > 0), qt.Commentf("%v", r.Reconnects))
		})
	}
}

func TestPaceTakesConnectionsInTurn(t *testing.T) {
	g := &generator{conns: make([]conn, 3)}
	p := &pace{g: g}
	for i := range g.conns {
		g.conns[i].id = i
		p.rest(&g.conns[i])
	}
	for i := range 1000 {
		c := p.next()
		qt.Assert(t, qt.Equals(c.id, i%3))
		p.rest(c)
	}
	qt.Check(t, qt.IsTrue(cap(p.resting) < 64), qt.Commentf("room for %d", cap(p.resting)))
	g.conns[1].fd = -1 // lost while it had no request
	for range 2 {
		qt.Assert(t, qt.Not(qt.Equals(p.next().id, 1)))
	}
	qt.Check(t, qt.IsNil(p.next()))
}
