package kvd

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/pmemsim"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

// expiring is a store whose values expire, in memory that crashes.
type expiring struct {
	h   *handler
	rng *rand.Rand
	now int64
	// lateNote commits the values before what is noted of them: the mistake that must show.
	lateNote bool
}

func (e *expiring) open(mem []byte, sim pmem.Domain) error {
	pool, err := pmem.OpenMemory(mem, sim, pmem.Options{FrameSize: 2048, LogEntries: 128})
	if err != nil {
		return err
	}
	store, err := kv.Open(pool, kv.Options{Checkpoint: 40, Reserve: 12})
	if err != nil {
		return err
	}
	s := newShared()
	s.now = func() time.Time { return time.Unix(e.now, 0) }
	e.h = &handler{store: store, shared: s, log: slog.New(slog.DiscardHandler)}
	return s.expire.open(pool)
}

// check looks for an entry of each value that expires.
func (e *expiring) check() error {
	entries := map[string]bool{}
	list, _, err := e.h.shared.expire.due(1<<62, 1<<30)
	if err != nil {
		return err
	}
	for _, d := range list {
		entries[fmt.Sprintf("%x %s", d.name[:8], d.key)] = true
	}
	var missing error
	err = e.h.store.Ascend(nil, func(key []byte, v *kv.Value) bool {
		if at := e.h.expiry(v); at != 0 && !entries[fmt.Sprintf("%016x %s", at, key)] {
			missing = fmt.Errorf("nobody looks for %q, which expires at %d", key, at)
		}
		return missing == nil
	})
	return errors.Join(err, missing)
}

// batch does what a ring does between two sends.
func (e *expiring) batch() error {
	h := e.h
	for range 1 + e.rng.IntN(4) {
		key := fmt.Appendf(nil, "%0*d", 1+250*e.rng.IntN(2), e.rng.IntN(20))
		if e.rng.IntN(5) == 0 {
			if _, err := h.store.PutBytes(key, []byte("stays")); err != nil {
				return err
			}
			continue
		}
		m := meta{tag: []byte(`"t"`), expires: e.now + int64(1+e.rng.IntN(30))}
		head := appendHead(nil, &m, "", 0)
		v, front, err := h.prepend(head, nil, len(key))
		if err == nil {
			err = h.noteExpiry(m.expires, key)
		}
		if err == nil {
			_, err = h.store.Put(key, &v, front)
		}
		if err != nil {
			return err
		}
		h.store.Pool().Unref(v.Frags[0].Frame)
	}
	if e.lateNote {
		if err := h.store.Commit(); err != nil {
			return err
		}
	}
	if err := h.Commit(); err != nil {
		return err
	}
	e.now += int64(e.rng.IntN(3))
	_, err := h.Tick()
	return err
}

func (e *expiring) run(seed uint64) error {
	e.rng, e.now = rand.New(rand.NewPCG(seed, 9)), 1e9
	mem := make([]byte, 2<<20)
	if _, err := pmem.FormatMemory(mem, nil, pmem.Options{FrameSize: 2048, LogEntries: 128}); err != nil {
		return err
	}
	mem, err := pmemsim.Lives(6, 400, mem, e.rng, nil, func(mem []byte, sim *pmemsim.Memory) error {
		err := e.open(mem, sim)
		if err == nil {
			err = e.check()
		}
		for err == nil {
			err = e.batch()
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := e.open(mem, nil); err != nil {
		return err
	}
	if err := e.check(); err != nil {
		return err
	}
	// In the end only those are left that do not expire.
	e.now += 1000
	for next := time.Duration(0); next >= 0; {
		if next, err = e.h.Tick(); err != nil {
			return err
		}
		if err := e.h.Commit(); err != nil {
			return err
		}
	}
	var left error
	err = e.h.store.Ascend(nil, func(key []byte, v *kv.Value) bool {
		if e.h.expiry(v) != 0 {
			left = fmt.Errorf("%q is left", key)
		}
		return left == nil
	})
	return errors.Join(err, left)
}

// Whatever a crash leaves, each value that expires is found when its time comes.
func TestExpiryCrash(t *testing.T) {
	for seed := range uint64(12) {
		qt.Assert(t, qt.IsNil((&expiring{}).run(seed)), qt.Commentf("seed %d", seed))
	}
}

// The test above finds the wrong order of the two commits.
func TestExpiryCrashFindsWrongOrder(t *testing.T) {
	for seed := range uint64(100) {
		if (&expiring{lateNote: true}).run(seed) != nil {
			return
		}
	}
	t.Error("values were committed before what is noted of them, and no crash has shown it")
}
