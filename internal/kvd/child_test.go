package kvd

import (
	"context"

	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/internal/servertest"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem/kv"
)

// loser answers PUTs of some values without storing them.
type loser struct {
	httpd.Handler
	n int
}

func (l *loser) Finish(x *httpd.Exchange, full bool) error {
	h := l.Handler.(*handler)
	if q := x.State().(*request); q.act == actPut && q.cond.none() {
		if l.n++; l.n%7 == 0 {
			return h.done(x, 204, `"lost"`)
		}
	}
	return h.Finish(x, full)
}

// child is a server in a process of its own, which can be killed.
func child(c *servertest.Child) error {
	store, err := kv.Open(c.Pool, kv.Options{Verify: true})
	if err != nil {
		return err
	}
	wrap := func(h httpd.Handler) httpd.Handler { return h }
	if c.Lose {
		wrap = func(h httpd.Handler) httpd.Handler { return &loser{Handler: h} }
	}
	srv, err := newServer(httpd.Config{Addr: c.Addr, Logger: c.Log, Rings: 2}, store, hooks{wrap: wrap})
	if err != nil {
		return err
	}
	return c.Run(srv.Addr(), func(ctx context.Context, a, b *pasteapi.Ring) error { return srv.Run(ctx, a, b) })
}
