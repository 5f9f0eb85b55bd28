package kv

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cockroachdb/pebble"
	"go.etcd.io/bbolt"
)

// engine is an embedded store. One goroutine uses it.
type engine interface {
	// Get appends the value to b. It need not see what was put since the last
	// Commit: nobody has been told of that yet.
	Get(b, key []byte) (value []byte, found bool, err error)
	Put(key, value []byte) error
	Delete(key []byte) error
	// Commit makes all changes durable.
	Commit() error
	Close() error
}

func openEngine(kind, dir string) (engine, error) {
	switch kind {
	case Bbolt:
		return openBbolt(filepath.Join(dir, "db"))
	case Pebble:
		return openPebble(filepath.Join(dir, "db"))
	}
	return nil, fmt.Errorf("unknown store %q: want %s or %s", kind, Bbolt, Pebble)
}

var bucketName = []byte("kv")

// boltEngine makes one read-write transaction of the changes of a batch, and
// one read-only transaction of its reads.
type boltEngine struct {
	db     *bbolt.DB
	rd, rw *bbolt.Tx
}

func openBbolt(path string) (engine, error) {
	// The map is large enough never to be made again; the free list in a hash
	// map and out of the commits is what its documentation advises for speed.
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{InitialMmapSize: 4 << 30, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucketIfNotExists(bucketName); return err })
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &boltEngine{db: db}, nil
}

func (e *boltEngine) Get(b, key []byte) (_ []byte, found bool, err error) {
	if e.rd == nil {
		if e.rd, err = e.db.Begin(false); err != nil {
			return b, false, err
		}
	}
	v := e.rd.Bucket(bucketName).Get(key)
	return append(b, v...), v != nil, nil
}

func (e *boltEngine) write() (_ *bbolt.Bucket, err error) {
	if e.rw == nil {
		if e.rw, err = e.db.Begin(true); err != nil {
			return nil, err
		}
	}
	return e.rw.Bucket(bucketName), nil
}

func (e *boltEngine) Put(key, value []byte) error {
	b, err := e.write()
	if err != nil {
		return err
	}
	// bbolt keeps the slice until the commit.
	return b.Put(key, append([]byte(nil), value...))
}

func (e *boltEngine) Delete(key []byte) error {
	b, err := e.write()
	if err != nil {
		return err
	}
	return b.Delete(key)
}

func (e *boltEngine) Commit() error {
	if e.rd != nil {
		if err := e.rd.Rollback(); err != nil {
			return err
		}
		e.rd = nil
	}
	if e.rw == nil {
		return nil
	}
	tx := e.rw
	e.rw = nil
	return tx.Commit()
}

func (e *boltEngine) Close() error { return errors.Join(e.Commit(), e.db.Close()) }

// pebbleEngine makes one batch of the changes of a batch.
type pebbleEngine struct {
	db    *pebble.DB
	batch *pebble.Batch
}

func openPebble(dir string) (engine, error) {
	cache := pebble.NewCache(256 << 20)
	defer cache.Unref()
	db, err := pebble.Open(dir, &pebble.Options{Cache: cache, MemTableSize: 64 << 20, Logger: quiet{}})
	if err != nil {
		return nil, err
	}
	return &pebbleEngine{db: db}, nil
}

func (e *pebbleEngine) Get(b, key []byte) ([]byte, bool, error) {
	v, closer, err := e.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return b, false, nil
	}
	if err != nil {
		return b, false, err
	}
	b = append(b, v...)
	return b, true, closer.Close()
}

func (e *pebbleEngine) write() *pebble.Batch {
	if e.batch == nil {
		e.batch = e.db.NewBatch()
	}
	return e.batch
}

func (e *pebbleEngine) Put(key, value []byte) error { return e.write().Set(key, value, nil) }
func (e *pebbleEngine) Delete(key []byte) error     { return e.write().Delete(key, nil) }

func (e *pebbleEngine) Commit() error {
	if e.batch == nil {
		return nil
	}
	b := e.batch
	e.batch = nil
	if err := b.Commit(pebble.Sync); err != nil {
		return err
	}
	return b.Close()
}

func (e *pebbleEngine) Close() error { return errors.Join(e.Commit(), e.db.Close()) }

// quiet drops what pebble tells about its work.
type quiet struct{}

func (quiet) Infof(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }
