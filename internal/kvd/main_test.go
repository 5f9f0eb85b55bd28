package kvd

import (
	"context"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/internal/servertest"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem/kv"
)

func TestMain(m *testing.M) {
	servertest.Main(child)
	goleak.VerifyTestMain(m)
}

// running is a server with its port.
type running struct {
	srv  *httpd.Server
	port *pasteapi.Port
}

func serveOn(ctx context.Context, store *kv.Store, addr, nic string) (*running, error) {
	log := slog.New(slog.DiscardHandler)
	srv, err := New(httpd.Config{Addr: addr, Logger: log}, store)
	if err != nil {
		return nil, err
	}
	port, err := pasteapi.Open(ctx, pasteapi.Options{NIC: nic, Receive: pasteapi.ReceiveSteered, Pool: store.Pool(), TxLimit: 64 << 20, Logger: log})
	if err == nil {
		err = port.Steer(srv.Addr().Port())
	}
	if err != nil {
		srv.Close()
		return nil, err
	}
	return &running{srv, port}, nil
}
