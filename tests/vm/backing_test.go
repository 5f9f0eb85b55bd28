package vm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
	"golang.org/x/sys/unix"
)

// poolSize is enough to have several of a device's mappings (2 MiB) and little
// enough for an emulated CPU.
const poolSize = 32 << 20

// place returns where the pool is to be, and what pmem should call that.
func place(t *testing.T) (path, backing string) {
	t.Helper()
	if path = os.Getenv("PASTE_TEST_POOL"); path != "" {
		return path, os.Getenv("PASTE_TEST_BACKING")
	}
	dir, err := os.MkdirTemp("/dev/shm", "paste-vm-test-")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "pool"), pmem.BackingTmpfs.String()
}

// create makes a new pool in place of whatever is there.
func create(t *testing.T, path string, o pmem.Options) *pmem.Pool {
	t.Helper()
	if o.Size == 0 {
		o.Size = poolSize
	}
	o.Overwrite = true
	p, err := pmem.Create(path, o)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { p.Close() })
	return p
}

func open(t *testing.T, path string, o pmem.Options) *pmem.Pool {
	t.Helper()
	p, err := pmem.Open(path, o)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { p.Close() })
	return p
}

// sound fails the test if anything in the pool is not as it should be.
func sound(t *testing.T, path string) {
	t.Helper()
	p := open(t, path, pmem.Options{ReadOnly: true})
	qt.Assert(t, qt.IsFalse(p.Live()))
	_, err := p.Check(context.Background(), nil, func(err error) { t.Errorf("damaged: %v", err) })
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Close()))
}

func payload(r pmem.Record) []byte {
	var b bytes.Buffer
	r.WriteTo(&b) // a bytes.Buffer takes everything
	return b.Bytes()
}

// record is the payload of record n: every byte depends on n.
func record(n uint64) []byte {
	b := make([]byte, 1+n*977%9000)
	rng := rand.New(rand.NewPCG(n, 1))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// received puts b into frames as a NIC would, appends them and lets go of them.
func received(p *pmem.Pool, b []byte) (uint64, error) {
	frames := make([]uint32, (len(b)+999)/1000)
	if n := p.Alloc(frames); n < len(frames) {
		return 0, fmt.Errorf("%d frames of %d", n, len(frames))
	}
	defer p.UnrefAll(frames)
	frags := make([]pmem.Fragment, len(frames))
	for i, f := range frames {
		n := copy(p.Frame(f)[256:1256], b[i*1000:])
		frags[i] = pmem.Fragment{Frame: f, Off: 256, Len: uint16(n)}
	}
	return p.Log().Append(frags, true)
}

func TestCreateAppendReopen(t *testing.T) {
	path, backing := place(t)
	for _, frame := range []int{2048, 4096} {
		t.Run(fmt.Sprint(frame), func(t *testing.T) {
			p := create(t, path, pmem.Options{FrameSize: frame})
			qt.Assert(t, qt.Equals(p.Backing().String(), backing))
			qt.Assert(t, qt.Equals(len(p.Mem()), poolSize))
			id := p.UUID()

			_, err := pmem.Create(path, pmem.Options{Size: poolSize})
			qt.Assert(t, qt.IsTrue(errors.Is(err, pmem.ErrExists) || errors.Is(err, pmem.ErrLocked)), qt.Commentf("%v", err))
			_, err = pmem.Open(path, pmem.Options{})
			qt.Assert(t, qt.ErrorIs(err, pmem.ErrLocked))

			for n := uint64(1); n <= 200; n++ {
				var seq uint64
				if n%3 == 0 {
					seq, err = p.Log().AppendCopyHeader([]byte{byte(n)}, record(n))
				} else {
					seq, err = received(p, record(n))
				}
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(seq, n))
				if n%7 == 0 {
					qt.Assert(t, qt.IsNil(p.Log().Commit()))
				}
				if n == 100 {
					qt.Assert(t, qt.IsNil(p.Log().Truncate(20)))
				}
			}
			qt.Assert(t, qt.IsNil(p.Log().Commit()))
			qt.Assert(t, qt.IsNil(p.SetRoot("a", pmem.Root{Value: [pmem.RootValue]byte{1, 2, 3}})))

			// Somebody else looks while it is open.
			r := open(t, path, pmem.Options{ReadOnly: true})
			qt.Assert(t, qt.IsTrue(r.Live()))
			qt.Assert(t, qt.Equals(r.Log().Len(), 180))
			qt.Assert(t, qt.IsNil(r.Close()))

			free := p.Free()
			qt.Assert(t, qt.IsNil(p.Close()))
			_, err = pmem.Create(path, pmem.Options{Size: poolSize})
			qt.Assert(t, qt.ErrorIs(err, pmem.ErrExists))
			sound(t, path)

			p = open(t, path, pmem.Options{})
			qt.Assert(t, qt.Equals(p.Backing().String(), backing))
			qt.Assert(t, qt.Equals(p.UUID(), id))
			qt.Assert(t, qt.Equals(p.Free(), free))
			next := uint64(21)
			for rec, err := range p.Log().Records() {
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(rec.Seq, next))
				qt.Assert(t, qt.IsNil(rec.Verify()))
				qt.Assert(t, qt.IsTrue(bytes.Equal(payload(rec), record(next))))
				next++
			}
			qt.Assert(t, qt.Equals(next, 201))
			root, ok := p.Root("a")
			qt.Assert(t, qt.IsTrue(ok))
			qt.Assert(t, qt.DeepEquals(root.Value[:4], []byte{1, 2, 3, 0}))
			qt.Assert(t, qt.IsNil(p.Close()))
		})
	}
}

// A log that wraps around its ring, and frames that are used again.
func TestLogWraps(t *testing.T) {
	path, _ := place(t)
	p := create(t, path, pmem.Options{Size: 4 << 20})
	for n := uint64(1); n <= 3000; n++ {
		_, err := received(p, record(n%7))
		qt.Assert(t, qt.IsNil(err))
		if n%50 == 0 {
			qt.Assert(t, qt.IsNil(p.Log().Commit()))
			qt.Assert(t, qt.IsNil(p.Log().Truncate(n-40)))
		}
	}
	qt.Assert(t, qt.IsNil(p.Close()))
	sound(t, path)
}

func TestOpenOrCreate(t *testing.T) {
	path, backing := place(t)
	create(t, path, pmem.Options{}).Close()
	p, err := pmem.OpenOrCreate(path, pmem.Options{Size: 2 * poolSize})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(len(p.Mem()), poolSize))
	qt.Assert(t, qt.IsNil(p.Close()))
	if backing != pmem.BackingDAX.String() {
		return
	}
	// A device has no name to remove: it is blank when its beginning is.
	p = open(t, path, pmem.Options{})
	clear(p.Mem()[:2<<20])
	pmem.Persist(p.Mem()[:2<<20])
	qt.Assert(t, qt.IsNil(p.Close()))
	_, err = pmem.Open(path, pmem.Options{})
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrNotPool))
	p, err = pmem.OpenOrCreate(path, pmem.Options{}) // all of it
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(len(p.Mem()) > poolSize))
	qt.Assert(t, qt.IsNil(p.Close()))

	_, err = pmem.Create(path, pmem.Options{Size: 1 << 50, Overwrite: true})
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrSize))
	sound(t, path) // which left the old one alone
}

func TestGrow(t *testing.T) {
	path, _ := place(t)
	p := create(t, path, pmem.Options{Size: 8 << 20})
	_, err := received(p, record(9))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Log().Commit()))
	free := p.Free()
	qt.Assert(t, qt.IsNil(p.Close()))

	qt.Assert(t, qt.IsNil(pmem.Grow(path, 24<<20)))
	p = open(t, path, pmem.Options{})
	qt.Assert(t, qt.Equals(len(p.Mem()), 24<<20))
	qt.Assert(t, qt.Equals(p.Free()-free, (16<<20)/p.FrameSize()))
	all := make([]uint32, p.Free())
	qt.Assert(t, qt.Equals(p.Alloc(all), len(all)))
	for _, f := range all {
		clear(p.Frame(f)) // SIGBUS if there were no memory behind it
	}
	p.UnrefAll(all)
	rec, err := p.Log().Record(1)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.DeepEquals(payload(rec), record(9)))
	qt.Assert(t, qt.IsNil(p.Close()))
	sound(t, path)
}

func TestDumpRestore(t *testing.T) {
	path, backing := place(t)
	p := create(t, path, pmem.Options{})
	for n := uint64(1); n <= 50; n++ {
		_, err := received(p, record(n))
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Assert(t, qt.IsNil(p.Log().Commit()))
	var archive bytes.Buffer
	qt.Assert(t, qt.IsNil(p.Dump(&archive, nil)))
	qt.Assert(t, qt.IsNil(p.Close()))

	p, err := pmem.Restore(&archive, path, pmem.Options{Size: poolSize, FrameSize: 4096, Overwrite: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(p.Backing().String(), backing))
	qt.Assert(t, qt.Equals(p.Log().Len(), 50))
	for rec, err := range p.Log().Records() {
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.DeepEquals(payload(rec), record(rec.Seq)))
	}
	qt.Assert(t, qt.IsNil(p.Close()))
	sound(t, path)
}

func TestKeyValueStore(t *testing.T) {
	path, _ := place(t)
	p := create(t, path, pmem.Options{})
	s, err := kv.Open(p, kv.Options{})
	qt.Assert(t, qt.IsNil(err))
	key := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	for n := range uint64(500) {
		_, err := s.PutBytes(key(n), record(n))
		qt.Assert(t, qt.IsNil(err))
		if n%10 == 9 {
			_, err := s.Delete(key(n - 5))
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(s.Commit()))
		}
		if n == 250 {
			qt.Assert(t, qt.IsNil(s.Checkpoint()))
		}
	}
	qt.Assert(t, qt.IsNil(s.Close()))
	qt.Assert(t, qt.IsNil(p.Close()))
	sound(t, path)

	p = open(t, path, pmem.Options{})
	s, err = kv.Open(p, kv.Options{})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(s.Len(), 450))
	for n := range uint64(500) {
		var v kv.Value
		found, err := s.Get(key(n), &v)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(found, n%10 != 4), qt.Commentf("%d", n))
		if found {
			s.Release(&v)
		}
	}
	qt.Assert(t, qt.IsNil(s.Close()))
	qt.Assert(t, qt.IsNil(p.Close()))
}

// A pool has one lock, by whatever name it is opened: a link to its file, or
// another node of its device.
func TestOtherName(t *testing.T) {
	path, _ := place(t)
	p := create(t, path, pmem.Options{})
	other := filepath.Join(t.TempDir(), "node")
	var st unix.Stat_t
	qt.Assert(t, qt.IsNil(unix.Stat(path, &st)))
	if st.Mode&unix.S_IFMT == unix.S_IFCHR {
		qt.Assert(t, qt.IsNil(unix.Mknod(other, unix.S_IFCHR|0o600, int(st.Rdev))))
	} else {
		other = path + ".link"
		qt.Assert(t, qt.IsNil(os.Link(path, other)))
		defer os.Remove(other)
	}
	_, err := pmem.Open(other, pmem.Options{})
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrLocked))
	qt.Assert(t, qt.IsNil(p.Close()))
	open(t, other, pmem.Options{})
	_, err = pmem.Open(path, pmem.Options{})
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrLocked))
}
