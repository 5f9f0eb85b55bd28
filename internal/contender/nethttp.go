package contender

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// netHTTP answers as the others do, by net/http.
type netHTTP struct {
	x      *Exchanger
	get    []byte
	length []string
}

func runNetHTTP(ctx context.Context, cfg *Config) error {
	if cfg.Raw != NotRaw {
		return errors.New("it speaks HTTP only")
	}
	ln, err := listener(ctx, cfg)
	if err != nil {
		return err
	}
	h := &netHTTP{x: NewExchanger(cfg), get: []byte(strings.Repeat("x", cfg.ResponseBytes)), length: []string{strconv.Itoa(cfg.ResponseBytes)}}
	srv := &http.Server{Handler: h}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	cfg.Ready(netip.MustParseAddrPort(ln.Addr().String()))
	if err := srv.Serve(ln); ctx.Err() == nil {
		return err
	}
	// Handlers end with their connections, which are closed.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return srv.Shutdown(end)
}

// ServeHTTP implements http.Handler.
func (h *netHTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.x.stats.Requests.Add(1)
	if r.Method == http.MethodGet {
		w.Header()["Content-Length"] = h.length
		_, _ = w.Write(h.get) // the client is gone otherwise
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if err := h.store(body); err != nil {
		w.WriteHeader(http.StatusInsufficientStorage)
	}
}

func (h *netHTTP) store(body []byte) error {
	h.x.mu.Lock()
	defer h.x.mu.Unlock()
	if err := h.x.store.appendCopy(body); err != nil {
		return err
	}
	return h.x.store.commit()
}
