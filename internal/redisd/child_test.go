package redisd

import (
	"context"

	"github.com/pastenet/paste/internal/redisd/store"
	"github.com/pastenet/paste/internal/servertest"
	"github.com/pastenet/paste/pasteapi"
)

// child is a server in a process of its own, which can be killed.
func child(c *servertest.Child) error {
	db, err := store.Open(c.Pool, true)
	if err != nil {
		return err
	}
	if c.Lose {
		n := 0
		db.Fault = func([]byte) bool { n++; return n%40 == 0 }
	}
	srv, err := New(Config{Addr: c.Addr, Logger: c.Log}, db)
	if err != nil {
		return err
	}
	return c.Run(srv.Addr(), func(ctx context.Context, a, b *pasteapi.Ring) error { return srv.Run(ctx, a, b) })
}
