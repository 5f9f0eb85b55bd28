package pmem

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// shm returns a directory on tmpfs that is gone after the test.
func shm(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pmem-test-")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

const testSize = 1 << 20

func newFile(t testing.TB, o Options) (string, *Pool) {
	t.Helper()
	path := filepath.Join(shm(t), "p.pool")
	if o.Size == 0 {
		o.Size = testSize
	}
	p, err := Create(path, o)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { p.Close() })
	return path, p
}

func TestCreateOpenClose(t *testing.T) {
	for _, frame := range []int{0, 2048, 4096} {
		t.Run(fmt.Sprint(frame), func(t *testing.T) {
			path, p := newFile(t, Options{FrameSize: frame})
			want := frame
			if want == 0 {
				want = DefaultFrameSize
			}
			qt.Assert(t, qt.Equals(p.FrameSize(), want))
			qt.Assert(t, qt.Equals(1<<p.FrameShift(), want))
			qt.Assert(t, qt.Equals(len(p.Mem()), testSize))
			qt.Assert(t, qt.Equals(int(p.Frames()), testSize/want))
			qt.Assert(t, qt.Equals(p.Free(), int(p.Frames()-p.FirstFrame())))
			qt.Assert(t, qt.Equals(p.Backing(), BackingTmpfs))
			qt.Assert(t, qt.Equals(p.Path(), path))
			qt.Assert(t, qt.IsTrue(p.LogEntries() >= 2*uint64(p.Frames())), qt.Commentf("%d entries for %d frames", p.LogEntries(), p.Frames()))

			first := p.FirstFrame()
			qt.Assert(t, qt.Equals(&p.Frame(first)[0], &p.Mem()[int(first)*want]))
			qt.Assert(t, qt.IsNil(p.Frame(first-1)))
			qt.Assert(t, qt.IsNil(p.Frame(0)))
			qt.Assert(t, qt.IsNil(p.Frame(p.Frames())))
			qt.Assert(t, qt.IsNil(p.Frame(^uint32(0))))

			id, created := p.UUID(), p.Created()
			qt.Assert(t, qt.IsNil(p.Close()))
			qt.Assert(t, qt.IsNil(p.Close()))

			q, err := Open(path, Options{})
			qt.Assert(t, qt.IsNil(err))
			defer q.Close()
			qt.Assert(t, qt.Equals(q.UUID(), id))
			qt.Assert(t, qt.Equals(q.Created().UnixNano(), created.UnixNano()))
			qt.Assert(t, qt.Equals(q.FirstFrame(), first))
		})
	}
}

func TestCreateLeavesNothingOnFailure(t *testing.T) {
	dir := shm(t)
	for _, o := range []Options{
		{},
		{Size: -1},
		{Size: 4096},
		{Size: testSize, FrameSize: 1024},
		{Size: testSize, LogEntries: 1 << 20},
		{Size: testSize, LogEntries: -1},
		{Size: 1 << 60},
		{Size: 1 << 42}, // more than any /dev/shm has
	} {
		_, err := Create(filepath.Join(dir, "p"), o)
		qt.Check(t, qt.ErrorIs(err, ErrSize), qt.Commentf("%+v", o))
	}
	left, err := os.ReadDir(dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(left, 0))
}

func TestCreateNeverOverwritesUnasked(t *testing.T) {
	path, p := newFile(t, Options{})
	_, err := Create(path, Options{Size: testSize})
	qt.Assert(t, qt.ErrorIs(err, ErrExists))
	// Not even by force while somebody has it open.
	_, err = Create(path, Options{Size: testSize, Overwrite: true})
	qt.Assert(t, qt.ErrorIs(err, ErrLocked))
	id := p.UUID()
	p.Close()

	q, err := Create(path, Options{Size: testSize, Overwrite: true})
	qt.Assert(t, qt.IsNil(err))
	defer q.Close()
	qt.Assert(t, qt.Not(qt.Equals(q.UUID(), id)))
}

func TestOpenOrCreate(t *testing.T) {
	path := filepath.Join(shm(t), "p")
	p, err := OpenOrCreate(path, Options{Size: testSize})
	qt.Assert(t, qt.IsNil(err))
	id := p.UUID()
	p.Close()
	p, err = OpenOrCreate(path, Options{Size: 2 * testSize})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(p.UUID(), id))
	p.Close()

	foreign := []byte("somebody's letters")
	qt.Assert(t, qt.IsNil(os.WriteFile(path, foreign, 0o600)))
	_, err = OpenOrCreate(path, Options{Size: testSize})
	qt.Assert(t, qt.ErrorIs(err, ErrNotPool))
	got, _ := os.ReadFile(path)
	qt.Assert(t, qt.DeepEquals(got, foreign))
}

// A device-DAX pool is created in place; the file stands in for the device.
func TestOpenOrCreateResumesInterruptedCreation(t *testing.T) {
	path, p := newFile(t, Options{})
	s := superblock{version: formatVersion, geometry: p.g, state: stateCreating, uuid: p.uuid, created: p.created}
	writeSuper(p.mem, p.dom, &s)
	p.Close()
	_, err := Open(path, Options{})
	qt.Assert(t, qt.ErrorIs(err, ErrIncomplete))
	p, err = OpenOrCreate(path, Options{Size: testSize})
	qt.Assert(t, qt.IsNil(err))
	p.Close()
}

func TestLock(t *testing.T) {
	path, p := newFile(t, Options{})
	_, err := Open(path, Options{})
	qt.Assert(t, qt.ErrorIs(err, ErrLocked))
	qt.Assert(t, qt.ErrorMatches(err, ".*held by this process; stop that first"))

	// A reader may look meanwhile, and is told that the picture moves.
	r, err := Open(path, Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsTrue(r.Live()))
	r.Close()

	p.Close()
	r, err = Open(path, Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	defer r.Close()
	qt.Assert(t, qt.IsFalse(r.Live()))
	qt.Assert(t, qt.Equals(r.Alloc(make([]uint32, 1)), 0))
	_, err = r.Log().AppendCopy([]byte("x"))
	qt.Assert(t, qt.ErrorIs(err, ErrReadOnly))
	qt.Assert(t, qt.ErrorIs(r.Log().Commit(), ErrReadOnly))
	qt.Assert(t, qt.ErrorIs(r.Log().Truncate(1), ErrReadOnly))
}

func TestRefusedPlaces(t *testing.T) {
	for _, f := range []func(string, Options) (*Pool, error){Create, OpenOrCreate, Open} {
		_, err := f("/proc/p", Options{Size: testSize})
		qt.Assert(t, qt.ErrorIs(err, ErrBacking))
		qt.Assert(t, qt.StringContains(err.Error(), "/proc/p is on proc"))
		qt.Assert(t, qt.StringContains(err.Error(), "/dev/shm"))
	}
	_, err := Open("/dev/null", Options{})
	qt.Assert(t, qt.ErrorIs(err, ErrBacking))
	fifo := filepath.Join(shm(t), "fifo")
	qt.Assert(t, qt.IsNil(unix.Mkfifo(fifo, 0o600)))
	_, err = Open(fifo, Options{ReadOnly: true})
	qt.Assert(t, qt.ErrorIs(err, ErrBacking))
	_, err = Open("/dev/shm", Options{})
	qt.Assert(t, qt.ErrorIs(err, ErrNotPool))
	_, err = Open(filepath.Join(shm(t), "absent"), Options{})
	qt.Assert(t, qt.ErrorIs(err, fs.ErrNotExist))
	_, err = Create("/dev/shm/absent-directory/p", Options{Size: testSize})
	qt.Assert(t, qt.ErrorIs(err, fs.ErrNotExist))
}

func TestAllocUnref(t *testing.T) {
	p, err := NewMemory("test", Options{Size: testSize})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	qt.Assert(t, qt.Equals(p.Backing(), BackingMemory))
	n := p.Free()
	all := make([]uint32, n+10)
	qt.Assert(t, qt.Equals(p.Alloc(all), n))
	qt.Assert(t, qt.Equals(p.Free(), 0))
	seen := map[uint32]bool{}
	for _, f := range all[:n] {
		qt.Assert(t, qt.IsNotNil(p.Frame(f)))
		qt.Assert(t, qt.IsFalse(seen[f]), qt.Commentf("frame %d twice", f))
		seen[f] = true
	}
	p.Ref(all[0])
	p.Unref(all[0])
	qt.Assert(t, qt.Equals(p.Free(), 0))
	p.UnrefAll(all[:n])
	qt.Assert(t, qt.Equals(p.Free(), n))

	var one [1]uint32
	p.Alloc(one[:])
	qt.Assert(t, qt.Equals(one[0], all[0])) // the last in is the first out
	p.Unref(one[0])
	qt.Assert(t, qt.Equals(p.Misuses(), 0))
	p.Unref(0) // stands for no frame
	qt.Assert(t, qt.Equals(p.Misuses(), 0))
	free := fmt.Sprintf(`pmem: Unref of frame %d, which is free: its last reference was given up before`, one[0])
	qt.Assert(t, qt.PanicMatches(func() { p.Unref(one[0]) }, free))
	qt.Assert(t, qt.PanicMatches(func() { p.UnrefAll(one[:]) }, free))
	qt.Assert(t, qt.PanicMatches(func() { p.Ref(one[0]) }, "pmem: Ref of frame .* is free.*"))
	qt.Assert(t, qt.PanicMatches(func() { p.Ref(p.Frames()) }, "pmem: Ref of frame .*, which is no data frame: those are .*"))
	qt.Assert(t, qt.ErrorIs(p.GiveBack(one[:]), ErrDamaged))
	qt.Assert(t, qt.Equals(p.Misuses(), 5))
	qt.Assert(t, qt.Equals(p.Free(), n))
}

func TestAllocConcurrently(t *testing.T) {
	p, err := NewMemory("test", Options{Size: testSize})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	n := p.Free()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var batch [32]uint32
			for range 500 {
				k := p.Alloc(batch[:])
				for _, f := range batch[:k] {
					// Two owners of one frame would be seen by the race detector.
					b := p.Frame(f)
					b[0] = byte(g)
					if b[0] != byte(g) {
						t.Errorf("frame %d has two owners", f)
					}
					p.Ref(f)
					p.Unref(f)
				}
				p.UnrefAll(batch[:k])
			}
		}()
	}
	wg.Wait()
	qt.Assert(t, qt.Equals(p.Free(), n))
	qt.Assert(t, qt.Equals(p.Misuses(), 0))
}

func TestErrorsAreTold(t *testing.T) {
	_, err := NewMemory("x", Options{})
	qt.Assert(t, qt.ErrorIs(err, ErrSize))
}
