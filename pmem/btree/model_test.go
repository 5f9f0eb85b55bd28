package btree_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
	"pgregory.net/rapid"
)

// modelled is a tree beside a model of it: what any sequence of operations must
// look like, now, after the last commit, and in a snapshot.
type modelled struct {
	path           string
	p              *pmem.Pool
	tr             *btree.Tree
	model, durable map[string]string
	snap           *btree.Snapshot
	snapModel      map[string]string
	keys           *rapid.Generator[string]
	t              *testing.T
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := newModelled(t, r)
		defer os.Remove(m.path)
		defer func() {
			m.closeSnapshot()
			m.p.Close()
		}()
		r.Repeat(map[string]func(*rapid.T){
			"fill": m.fill, "clear": m.clear, "put": m.put, "delete": m.delete,
			"commit": m.commit, "commit in steps": m.commitInSteps,
			"snapshot": m.snapshot, "reopen": m.reopen,
			"": func(r *rapid.T) { compare(r, m.p, m.tr, m.model) },
		})
		m.closeSnapshot()
		if err := m.tr.Commit(); err != nil {
			r.Fatal(err)
		}
		m.tr.Close()
		if a, b := used(m.p), reachable(t, m.p, "t"); a != b {
			r.Fatalf("%d frames in use, %d reachable", a, b)
		}
	})
}

func newModelled(t *testing.T, r *rapid.T) *modelled {
	frame := rapid.SampledFrom([]int{2048, 4096}).Draw(r, "frame")
	m := &modelled{
		t:     t,
		path:  filepath.Join("/dev/shm", fmt.Sprintf("paste-btree-%d", rand.Uint64())),
		model: map[string]string{}, durable: map[string]string{},
		keys: rapid.OneOf(
			rapid.Custom(func(r *rapid.T) string { return fmt.Sprintf("key%06d", rapid.IntRange(0, 400).Draw(r, "n")) }),
			rapid.Custom(func(r *rapid.T) string {
				return string(bytes.Repeat([]byte{'a' + byte(rapid.IntRange(0, 25).Draw(r, "c"))}, rapid.IntRange(0, 255).Draw(r, "l")))
			}),
		),
	}
	var err error
	if m.p, err = pmem.Create(m.path, pmem.Options{Size: 8 << 20, FrameSize: frame, LogEntries: 64}); err != nil {
		r.Fatal(err)
	}
	if m.tr, err = btree.Create(m.p, "t", btree.Options{}); err != nil {
		r.Fatal(err)
	}
	return m
}

func (m *modelled) store(r *rapid.T, k string, v []byte, perFragment int) {
	if rapid.Bool().Draw(r, "looks first") { // for this key, or for another one
		other := rapid.SampledFrom([]string{k, k, "key000100"}).Draw(r, "looks for")
		var was btree.Value
		found, err := m.tr.Find([]byte(other), &was)
		if want, has := m.model[other]; err != nil || found != has || found && string(was.AppendTo(m.p, nil)) != want {
			r.Fatalf("find %q: %v, %v; want %v, %q", other, found, err, has, want)
		}
	}
	if err := put(m.tr, k, v, perFragment); err != nil {
		r.Fatal(err)
	}
	m.model[k] = string(v)
}

func (m *modelled) drop(r *rapid.T, k string) {
	_, had := m.model[k]
	found, err := m.tr.Delete([]byte(k))
	if err != nil || found != had {
		r.Fatalf("delete %q: %v, %v; want %v", k, found, err, had)
	}
	delete(m.model, k)
}

func (m *modelled) fill(r *rapid.T) {
	first, n := rapid.IntRange(0, 1000).Draw(r, "first"), rapid.IntRange(1, 300).Draw(r, "n")
	for i := first; i < first+n; i++ {
		m.store(r, fmt.Sprintf("key%06d", i), fmt.Appendf(nil, "value %d", i), 0)
	}
}

func (m *modelled) clear(r *rapid.T) {
	first, n := rapid.IntRange(0, 1000).Draw(r, "first"), rapid.IntRange(1, 400).Draw(r, "n")
	for i := first; i < first+n; i++ {
		m.drop(r, fmt.Sprintf("key%06d", i))
	}
}

func (m *modelled) put(r *rapid.T) {
	k := m.keys.Draw(r, "key")
	v := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(r, "value")
	// Few bytes per fragment make lists that overflow the leaf.
	m.store(r, k, v, rapid.SampledFrom([]int{0, 1, 7, 100}).Draw(r, "per fragment"))
}

func (m *modelled) delete(r *rapid.T) { m.drop(r, m.keys.Draw(r, "key")) }

func (m *modelled) commit(r *rapid.T) {
	if err := m.tr.Commit(); err != nil {
		r.Fatal(err)
	}
	m.durable = clone(m.model)
}

func (m *modelled) commitInSteps(r *rapid.T) {
	if err := m.tr.Commit(); err != nil {
		r.Fatal(err)
	}
	m.store(r, "last", []byte("1"), 0)
	c, err := m.tr.BeginCommit()
	if err != nil {
		r.Fatal(err)
	}
	m.durable = clone(m.model)
	for done := false; !done; {
		m.store(r, m.keys.Draw(r, "key"), []byte("meanwhile"), 0)
		if done, err = c.Step(2); err != nil {
			r.Fatal(err)
		}
	}
}

func (m *modelled) snapshot(r *rapid.T) {
	if m.snap != nil {
		compare(r, m.p, m.snap, m.snapModel)
		m.closeSnapshot()
	}
	m.snap, m.snapModel = m.tr.Snapshot(), m.durable
	compare(r, m.p, m.snap, m.snapModel)
}

func (m *modelled) closeSnapshot() {
	if m.snap != nil {
		m.snap.Close()
		m.snap = nil
	}
}

func (m *modelled) reopen(r *rapid.T) {
	m.closeSnapshot()
	if n := m.p.Misuses(); n != 0 {
		r.Fatalf("%d misuses", n)
	}
	m.tr.Close()
	m.p.Close()
	var err error
	if m.p, err = pmem.Open(m.path, pmem.Options{}); err != nil {
		r.Fatal(err)
	}
	if m.tr, err = btree.Open(m.p, "t", btree.Options{}); err != nil {
		r.Fatal(err)
	}
	m.model = clone(m.durable)
	if a, b := used(m.p), reachable(m.t, m.p, "t"); a != b {
		r.Fatalf("%d frames in use, %d reachable", a, b)
	}
}

type reader interface {
	Get([]byte, *btree.Value) (bool, error)
	Ascend([]byte, func(btree.Entry) bool) error
	Descend([]byte, func(btree.Entry) bool) error
	Len() uint64
}

// compare holds everything that can be read against the model.
func compare(r *rapid.T, p *pmem.Pool, tr reader, model map[string]string) {
	keys := make([]string, 0, len(model))
	for k := range model {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	if tr.Len() != uint64(len(keys)) {
		r.Fatalf("%d keys, want %d", tr.Len(), len(keys))
	}
	var v btree.Value
	i := 0
	check := func(e btree.Entry) bool {
		if i < 0 || i >= len(keys) || string(e.Key()) != keys[i] {
			r.Fatalf("key %d is %q", i, e.Key())
		}
		e.Value(&v)
		if got := string(v.AppendTo(p, nil)); got != model[keys[i]] {
			r.Fatalf("key %q has value %q, want %q", keys[i], got, model[keys[i]])
		}
		if err := v.Verify(p); err != nil {
			r.Fatal(err)
		}
		return true
	}
	err := tr.Ascend(nil, func(e btree.Entry) bool { ok := check(e); i++; return ok })
	if err != nil || i != len(keys) {
		r.Fatalf("ascended over %d of %d keys: %v", i, len(keys), err)
	}
	i = len(keys) - 1
	err = tr.Descend(nil, func(e btree.Entry) bool { ok := check(e); i--; return ok })
	if err != nil || i != -1 {
		r.Fatalf("descended to key %d of %d: %v", i, len(keys), err)
	}
	for _, from := range []string{"key000200", "a", "zz", "key0002005"} {
		at, found := slices.BinarySearch(keys, from)
		i = at
		if err := tr.Ascend([]byte(from), func(e btree.Entry) bool { check(e); i++; return i < at+5 }); err != nil {
			r.Fatal(err)
		}
		if want := min(at+5, len(keys)); i != want && at < len(keys) {
			r.Fatalf("ascend from %q ended at %d, want %d", from, i, want)
		}
		if i = at; !found {
			i--
		}
		if err := tr.Descend([]byte(from), func(e btree.Entry) bool { check(e); i--; return i > at-5 }); err != nil {
			r.Fatal(err)
		}
		if ok, err := tr.Get([]byte(from), &v); ok != found || err != nil {
			r.Fatalf("get %q: %v, %v", from, ok, err)
		}
	}
}

func clone(m map[string]string) map[string]string {
	c := make(map[string]string, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}
