package kvd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

// serveEnv makes this program a server: "pool file,address,nic".
const serveEnv = "PASTE_KVD_TEST_SERVE"

func TestMain(m *testing.M) {
	if args := os.Getenv(serveEnv); args != "" {
		if err := serveProcess(strings.Split(args, ",")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func serveProcess(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	pool, err := pmem.OpenOrCreate(args[0], pmem.Options{Size: 32 << 20})
	if err != nil {
		return err
	}
	defer pool.Close()
	store, err := kv.Open(pool, kv.Options{Verify: true, Checkpoint: 500})
	if err != nil {
		return err
	}
	s, err := serveOn(ctx, store, args[1], args[2])
	if err != nil {
		return err
	}
	fmt.Println("ready", store.Len())
	if err := s.run(ctx); err != nil {
		return err
	}
	return store.Close()
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
	port, err := pasteapi.Open(ctx, pasteapi.Options{NIC: nic, Pool: store.Pool(), TxLimit: 64 << 20, Logger: log})
	if err == nil {
		err = port.Steer(srv.Addr().Port())
	}
	if err != nil {
		srv.Close()
		return nil, err
	}
	return &running{srv, port}, nil
}

func (r *running) run(ctx context.Context) error {
	err := r.srv.Run(ctx, r.port.Ring(0))
	if cerr := r.port.Close(); err == nil {
		err = cerr
	}
	return err
}
