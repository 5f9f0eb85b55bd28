package kv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble"
	"go.etcd.io/bbolt"
)

// syncStore is an embedded store as a handler of package net/http uses it: from
// many goroutines at once, each change durable when the call returns. The stores
// themselves make one sync of the changes that come together.
type syncStore interface {
	// get calls found with the value, which is valid during the call.
	get(key []byte, found func(value []byte) error) error
	put(key, value []byte) error
	delete(key []byte) error
	Close() error
}

var errNotFound = errors.New("not found")

func openSyncStore(kind, dir string) (syncStore, error) {
	switch kind {
	case BboltHTTP:
		e, err := openBbolt(filepath.Join(dir, "db"))
		if err != nil {
			return nil, err
		}
		db := e.(*boltEngine).db
		// Its default of 10 ms is meant for a disk.
		db.MaxBatchDelay = 200 * time.Microsecond
		return boltSync{db}, nil
	case PebbleHTTP:
		e, err := openPebble(filepath.Join(dir, "db"))
		if err != nil {
			return nil, err
		}
		return pebbleSync{e.(*pebbleEngine).db}, nil
	}
	return nil, fmt.Errorf("unknown store %q", kind)
}

type boltSync struct{ *bbolt.DB }

func (s boltSync) get(key []byte, found func([]byte) error) error {
	return s.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketName).Get(key)
		if v == nil {
			return errNotFound
		}
		return found(v)
	})
}

func (s boltSync) put(key, value []byte) error {
	return s.Batch(func(tx *bbolt.Tx) error { return tx.Bucket(bucketName).Put(key, value) })
}

func (s boltSync) delete(key []byte) error {
	return s.Batch(func(tx *bbolt.Tx) error { return tx.Bucket(bucketName).Delete(key) })
}

type pebbleSync struct{ *pebble.DB }

func (s pebbleSync) get(key []byte, found func([]byte) error) error {
	v, closer, err := s.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return errNotFound
	}
	if err != nil {
		return err
	}
	return errors.Join(found(v), closer.Close())
}

func (s pebbleSync) put(key, value []byte) error { return s.Set(key, value, pebble.Sync) }
func (s pebbleSync) delete(key []byte) error     { return s.Delete(key, pebble.Sync) }

// serveHTTP is the server that most people write: package net/http over an
// embedded store.
func serveHTTP(ctx context.Context, kind string, addr netip.AddrPort, dir string, out io.Writer) error {
	store, err := openSyncStore(kind, dir)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	ln, err := net.Listen("tcp", addr.String())
	if err != nil {
		return errors.Join(err, store.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/k/", func(w http.ResponseWriter, r *http.Request) {
		handle(store, w, r)
	})
	srv := &http.Server{Handler: mux}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	fmt.Fprintf(out, "listening on %s\n", addr)
	select {
	case <-ctx.Done():
		err = srv.Close()
		<-done
	case err = <-done:
	}
	return errors.Join(err, store.Close())
}

func handle(store syncStore, w http.ResponseWriter, r *http.Request) {
	key := []byte(strings.TrimPrefix(r.URL.Path, "/k/"))
	var err error
	switch r.Method {
	case http.MethodGet:
		err = store.get(key, func(v []byte) error {
			w.Header().Set("Content-Length", strconv.Itoa(len(v)))
			_, err := w.Write(v)
			return err
		})
	case http.MethodPut:
		var value []byte
		if value, err = io.ReadAll(r.Body); err == nil {
			err = store.put(key, value)
		}
		if err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
	case http.MethodDelete:
		if err = store.delete(key); err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
	switch {
	case errors.Is(err, errNotFound):
		w.WriteHeader(http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
