package btree_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

func memory(t testing.TB, size int64, frame int) *pmem.Pool {
	p, err := pmem.NewMemory("btree-test", pmem.Options{Size: size, FrameSize: frame, LogEntries: 64})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() {
		qt.Check(t, qt.Equals(p.Misuses(), 0))
		p.Close()
	})
	return p
}

// put stores b: inline if it is short, in frames of n bytes each otherwise.
func put(t *btree.Tree, key string, b []byte, n int) error {
	v, frames, err := value(t.Pool(), b, n)
	if err == nil {
		_, err = t.Put([]byte(key), &v)
	}
	t.Pool().UnrefAll(frames)
	return err
}

func value(p *pmem.Pool, b []byte, n int) (v btree.Value, frames []uint32, err error) {
	if len(b) <= btree.MaxInline && n == 0 {
		return btree.Value{Inline: b}, nil, nil
	}
	if n == 0 {
		n = p.FrameSize()
	}
	v.Len = uint32(len(b))
	for len(b) > 0 {
		var f [1]uint32
		if p.Alloc(f[:]) == 0 {
			return v, frames, pmem.ErrFull
		}
		frames = append(frames, f[0])
		k := copy(p.Frame(f[0])[:n], b)
		p.Flush(p.Offset(f[0], 0), uint64(k))
		v.Frags = append(v.Frags, pmem.Fragment{Frame: f[0], Len: uint16(k)})
		b = b[k:]
	}
	v.Sum = btree.SumOf(p, v.Frags)
	return v, frames, nil
}

func get(t testing.TB, r interface {
	Get([]byte, *btree.Value) (bool, error)
}, p *pmem.Pool, key string) ([]byte, bool) {
	var v btree.Value
	ok, err := r.Get([]byte(key), &v)
	qt.Assert(t, qt.IsNil(err))
	if !ok {
		return nil, false
	}
	qt.Assert(t, qt.IsNil(v.Verify(p)))
	b := v.AppendTo(p, []byte{})
	qt.Assert(t, qt.Equals(int64(len(b)), v.Size()))
	return b, true
}

// used is how many frames of a pool are not free.
func used(p *pmem.Pool) int { return int(p.Frames()-p.FirstFrame()) - p.Free() }

// reachable counts the frames that the durable tree owns.
func reachable(t testing.TB, p *pmem.Pool, name string) int {
	r, ok := p.Root(name)
	qt.Assert(t, qt.IsTrue(ok))
	frames := map[uint32]bool{}
	qt.Assert(t, qt.IsNil(btree.Walk(p, r, func(f uint32) error { frames[f] = true; return nil })))
	return len(frames)
}

func TestEmpty(t *testing.T) {
	p := memory(t, 1<<20, 2048)
	tr, err := btree.Create(p, "t", btree.Options{})
	qt.Assert(t, qt.IsNil(err))
	_, err = btree.Create(p, "t", btree.Options{})
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrExists))
	_, err = btree.Open(p, "u", btree.Options{})
	qt.Assert(t, qt.ErrorIs(err, btree.ErrNoTree))
	_, ok := get(t, tr, p, "x")
	qt.Assert(t, qt.IsFalse(ok))
	found, err := tr.Delete([]byte("x"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsFalse(found))
	qt.Assert(t, qt.IsNil(tr.Commit()))
	tr.Close()
	qt.Assert(t, qt.Equals(used(p), 0))
	_, err = tr.Put([]byte("x"), &btree.Value{})
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrClosed))
}

func TestLimits(t *testing.T) {
	p := memory(t, 1<<20, 2048)
	tr, err := btree.Create(p, "t", btree.Options{})
	qt.Assert(t, qt.IsNil(err))
	_, err = tr.Put(make([]byte, btree.MaxKey+1), &btree.Value{})
	qt.Assert(t, qt.ErrorIs(err, btree.ErrKeyTooLong))
	_, err = tr.Put(nil, &btree.Value{Inline: make([]byte, btree.MaxInline+1)})
	qt.Assert(t, qt.ErrorIs(err, btree.ErrValueTooLong))
	for _, v := range []btree.Value{
		{Frags: []pmem.Fragment{{Frame: 0, Len: 1}}, Len: 1},
		{Frags: []pmem.Fragment{{Frame: p.FirstFrame(), Len: 0}}},
		{Frags: []pmem.Fragment{{Frame: p.FirstFrame(), Off: 2000, Len: 100}}, Len: 100},
		{Frags: []pmem.Fragment{{Frame: p.FirstFrame(), Len: 100}}, Len: 99},
		{Frags: []pmem.Fragment{{Frame: p.FirstFrame(), Len: 10}}, Len: 10, Pre: 11},
	} {
		_, err = tr.Put([]byte("k"), &v)
		qt.Assert(t, qt.ErrorIs(err, pmem.ErrFragment))
	}
	// The empty key, and one of the largest size, are keys like any other.
	for _, k := range []string{"", string(make([]byte, btree.MaxKey))} {
		qt.Assert(t, qt.IsNil(put(tr, k, []byte("v"+k[:0]), 0)))
		b, ok := get(t, tr, p, k)
		qt.Assert(t, qt.IsTrue(ok))
		qt.Assert(t, qt.Equals(string(b), "v"))
	}
}

// A full pool refuses Put, serves everything, and lets room be made.
func TestFull(t *testing.T) {
	p := memory(t, 1<<20, 2048)
	tr, err := btree.Create(p, "t", btree.Options{})
	qt.Assert(t, qt.IsNil(err))
	n := 0
	for ; ; n++ {
		if err = put(tr, fmt.Sprint("key", n), bytes.Repeat([]byte{byte(n)}, 100), 0); err != nil {
			break
		}
	}
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrFull))
	for i := range n {
		b, ok := get(t, tr, p, fmt.Sprint("key", i))
		qt.Assert(t, qt.IsTrue(ok))
		qt.Assert(t, qt.DeepEquals(b, bytes.Repeat([]byte{byte(i)}, 100)))
	}
	for i := range n {
		found, err := tr.Delete([]byte(fmt.Sprint("key", i)))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsTrue(found))
		if i%8 == 7 {
			qt.Assert(t, qt.IsNil(tr.Commit()))
		}
	}
	qt.Assert(t, qt.IsNil(tr.Commit()))
	qt.Assert(t, qt.IsNil(put(tr, "key", make([]byte, 100), 0)))
	tr.Close()
}

// Every single bit that is flipped in a node is found, and named, by Check.
func TestDamage(t *testing.T) {
	p := memory(t, 4<<20, 2048)
	tr, err := btree.Create(p, "t", btree.Options{})
	qt.Assert(t, qt.IsNil(err))
	for i := range 500 {
		qt.Assert(t, qt.IsNil(put(tr, fmt.Sprintf("key%05d", i), []byte("some value"), 0)))
	}
	qt.Assert(t, qt.IsNil(put(tr, "large", make([]byte, 100), 3)))
	qt.Assert(t, qt.IsNil(tr.Commit()))
	r, _ := p.Root("t")
	var frames []uint32
	qt.Assert(t, qt.IsNil(btree.Walk(p, r, func(f uint32) error { frames = append(frames, f); return nil })))
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		f := frames[rng.IntN(len(frames))]
		b := p.Frame(f)
		if s := string(b[:4]); s != "PTTN" && s != "PTTO" {
			continue // a value of three bytes
		}
		i, bit := rng.IntN(len(b)), byte(1)<<rng.IntN(8)
		b[i] ^= bit
		found := false
		qt.Assert(t, qt.IsNil(btree.Check(p, "t", r, func(err error) error {
			qt.Check(t, qt.ErrorIs(err, pmem.ErrDamaged))
			found = found || bytes.Contains([]byte(err.Error()), []byte(fmt.Sprint("frame ", f)))
			return nil
		})))
		qt.Assert(t, qt.IsTrue(found), qt.Commentf("frame %d byte %d", f, i))
		qt.Assert(t, qt.ErrorIs(btree.Walk(p, r, func(uint32) error { return nil }), pmem.ErrDamaged))
		// Reading it must end, with an error or without.
		var v btree.Value
		for _, k := range []string{"key00000", "key00250", "key00499", "large"} {
			if _, err := tr.Get([]byte(k), &v); err != nil {
				qt.Assert(t, qt.ErrorIs(err, pmem.ErrDamaged))
			}
		}
		b[i] ^= bit
	}
	qt.Assert(t, qt.IsNil(btree.Check(p, "t", r, func(err error) error { return err })))
	// A value's content is checked as well, and its key named.
	var v btree.Value
	_, err = tr.Get([]byte("large"), &v)
	qt.Assert(t, qt.IsNil(err))
	p.Frame(v.Frags[5].Frame)[v.Frags[5].Off] ^= 1
	err = btree.Check(p, "t", r, func(err error) error { return err })
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrChecksum))
	qt.Assert(t, qt.ErrorMatches(err, `.*key "large".*`))
}

func TestDumpRestore(t *testing.T) {
	p, q := memory(t, 4<<20, 2048), memory(t, 8<<20, 4096)
	tr, err := btree.Create(p, "t", btree.Options{})
	qt.Assert(t, qt.IsNil(err))
	tr.SetTag(77)
	want := map[string]string{}
	for i := range 300 {
		k, v := fmt.Sprintf("key%05d", i), bytes.Repeat([]byte{byte(i)}, i*20)
		want[k] = string(v)
		qt.Assert(t, qt.IsNil(put(tr, k, v, 500*(i%2))))
	}
	qt.Assert(t, qt.IsNil(tr.Commit()))
	r, _ := p.Root("t")
	var dump bytes.Buffer
	qt.Assert(t, qt.IsNil(btree.Dump(p, "t", r, &dump)))
	whole := bytes.Clone(dump.Bytes())
	qt.Assert(t, qt.IsNil(btree.Restore(q, "t", &dump)))
	tr2, err := btree.Open(q, "t", btree.Options{})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(tr2.Tag(), 77))
	for k, v := range want {
		b, ok := get(t, tr2, q, k)
		qt.Assert(t, qt.IsTrue(ok))
		qt.Assert(t, qt.Equals(string(b), v))
	}
	tr2.Close()
	qt.Assert(t, qt.Equals(used(q), reachable(t, q, "t")))
	qt.Assert(t, qt.IsNotNil(btree.Restore(q, "short", bytes.NewReader(whole[:len(whole)/2]))))
	whole[len(whole)-1] ^= 1
	err = btree.Restore(q, "rotten", bytes.NewReader(whole))
	qt.Assert(t, qt.IsTrue(errors.Is(err, pmem.ErrChecksum) || errors.Is(err, pmem.ErrFull)), qt.Commentf("%v", err))
}
