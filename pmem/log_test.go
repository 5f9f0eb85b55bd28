package pmem

import (
	"bytes"
	"os"
	"testing"

	"github.com/go-quicktest/qt"
)

func memory(t testing.TB, o Options) *Pool {
	t.Helper()
	if o.Size == 0 {
		o.Size = testSize
	}
	p, err := NewMemory("pmem-test", o)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { p.Close() })
	return p
}

func payloadOf(t testing.TB, r Record) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := r.WriteTo(&b)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(n, r.Length))
	return b.Bytes()
}

func TestAppendInPlace(t *testing.T) {
	p := memory(t, Options{})
	l := p.Log()
	var f [2]uint32
	p.Alloc(f[:])
	copy(p.Frame(f[0])[100:], "hello, ")
	copy(p.Frame(f[1])[2043:], "world")
	seq, err := l.Append([]Fragment{{f[0], 100, 7}, {f[1], 2043, 5}}, true)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(p.Refs(f[0]), 2))

	_, err = l.Record(seq) // staged, not committed
	qt.Assert(t, qt.ErrorIs(err, ErrNoRecord))
	qt.Assert(t, qt.Equals(l.Len(), 0))
	qt.Assert(t, qt.Equals(l.Next(), seq+1))

	qt.Assert(t, qt.IsNil(l.Commit()))
	p.UnrefAll(f[:])
	qt.Assert(t, qt.Equals(p.Refs(f[0]), 1))
	r, err := l.Record(seq)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(r.Verify()))
	qt.Assert(t, qt.Equals(string(payloadOf(t, r)), "hello, world"))
	qt.Assert(t, qt.Equals(&r.Payload(0)[0], &p.Frame(f[0])[100])) // no copy

	p.Frame(f[1])[2043] ^= 1
	err = r.Verify()
	qt.Assert(t, qt.ErrorIs(err, ErrChecksum))
	qt.Assert(t, qt.ErrorMatches(err, "record 1, fragment 1 in frame .*"))

	qt.Assert(t, qt.IsNil(l.Truncate(seq)))
	qt.Assert(t, qt.Equals(p.Refs(f[0]), 0))
	qt.Assert(t, qt.Equals(l.Head(), seq+1))
}

func TestAppendRefusesBadFragments(t *testing.T) {
	p := memory(t, Options{})
	l := p.Log()
	var f [1]uint32
	p.Alloc(f[:])
	for _, bad := range []Fragment{
		{0, 0, 1}, {p.FirstFrame() - 1, 0, 1}, {p.Frames(), 0, 1}, {^uint32(0), 0, 1},
		{f[0], 2048, 1}, {f[0], 1, 2048}, {f[0], 65535, 65535},
		{p.Frames() - 1, 0, 1}, // free
	} {
		_, err := l.Append([]Fragment{{f[0], 0, 1}, bad}, true)
		qt.Assert(t, qt.ErrorIs(err, ErrFragment), qt.Commentf("%+v", bad))
	}
	qt.Assert(t, qt.Equals(p.Refs(f[0]), 1))
	qt.Assert(t, qt.Equals(p.Misuses(), 0))
	qt.Assert(t, qt.Equals(l.Used(), 0))
	_, err := l.Append(make([]Fragment, l.MaxFragments()+1), true)
	qt.Assert(t, qt.ErrorIs(err, ErrFragment))
}

func TestLogFull(t *testing.T) {
	p := memory(t, Options{LogEntries: 32})
	l := p.Log()
	for range 32 {
		_, err := l.AppendCopy(nil)
		qt.Assert(t, qt.IsNil(err))
	}
	_, err := l.AppendCopy(nil)
	qt.Assert(t, qt.ErrorIs(err, ErrFull))
	qt.Assert(t, qt.ErrorMatches(err, ".*32 of 32 log entries.*"))
	qt.Assert(t, qt.IsNil(l.Commit()))
	qt.Assert(t, qt.IsNil(l.Truncate(1)))
	_, err = l.AppendCopy(nil)
	qt.Assert(t, qt.IsNil(err))
}

func TestFramesFull(t *testing.T) {
	p := memory(t, Options{})
	l := p.Log()
	n := p.Free()
	_, err := l.AppendCopy(make([]byte, (n+1)*p.FrameSize()))
	qt.Assert(t, qt.ErrorIs(err, ErrFull))
	qt.Assert(t, qt.ErrorMatches(err, ".*frames are needed.*"))
	qt.Assert(t, qt.Equals(p.Free(), n))
	_, err = l.AppendCopy(make([]byte, n*p.FrameSize()))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(p.Free(), 0))
}

// A staged record is forgotten by Close; a committed one is not.
func TestReopen(t *testing.T) {
	for _, noFlush := range []bool{false, true} {
		path, p := newFile(t, Options{NoFlush: noFlush})
		p.Log().AppendCopy([]byte("one"))
		qt.Assert(t, qt.IsNil(p.Log().Commit()))
		p.Log().AppendCopy([]byte("two"))
		p.Close()

		p, err := Open(path, Options{})
		qt.Assert(t, qt.IsNil(err))
		defer p.Close()
		rec := p.Log().Recovery()
		qt.Assert(t, qt.Equals(rec.Records, 1))
		qt.Assert(t, qt.Equals(rec.Bytes, 3))
		qt.Assert(t, qt.IsNil(rec.Damage))
		qt.Assert(t, qt.Equals(p.Free(), int(p.Frames()-p.FirstFrame())-1))
		qt.Assert(t, qt.Equals(p.Log().Next(), 2))
	}
}

// Entries that were durable and are rotten now are named, and no writer goes on
// over them.
func TestRottenEntry(t *testing.T) {
	path, p := newFile(t, Options{})
	for range 5 {
		p.Log().AppendCopy([]byte("payload"))
		qt.Assert(t, qt.IsNil(p.Log().Commit()))
	}
	ring := int64(p.g.logOff)
	p.Close()
	flip(t, path, ring+2*entryLen+24)

	_, err := Open(path, Options{})
	qt.Assert(t, qt.ErrorIs(err, ErrDamaged))
	qt.Assert(t, qt.ErrorMatches(err, ".*log entry 2, of record 3.*"))
	p, err = Open(path, Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.ErrorIs(p.Log().Recovery().Damage, ErrDamaged))
	qt.Assert(t, qt.Equals(p.Log().Len(), 2))
	p.Close()

	flip(t, path, ring+2*entryLen+24)
	flip(t, path, ring+4*entryLen)
	_, err = Open(path, Options{}) // Close had noted that it is durable
	qt.Assert(t, qt.ErrorIs(err, ErrDamaged))
	qt.Assert(t, qt.ErrorMatches(err, ".*log entry 4, of record 5.*"))
}

func flip(t testing.TB, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], off)
	qt.Assert(t, qt.IsNil(err))
	b[0] ^= 1
	_, err = f.WriteAt(b[:], off)
	qt.Assert(t, qt.IsNil(err))
}

// A reader of a pool in use follows the writer's truncation.
func TestLiveReader(t *testing.T) {
	path, w := newFile(t, Options{LogEntries: 32})
	for i := range 20 {
		w.Log().AppendCopy([]byte{byte(i)})
	}
	qt.Assert(t, qt.IsNil(w.Log().Commit()))
	r, err := Open(path, Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	defer r.Close()
	qt.Assert(t, qt.IsNil(w.Log().Truncate(15)))
	for i := range 20 {
		w.Log().AppendCopy([]byte{100 + byte(i)})
	}
	qt.Assert(t, qt.IsNil(w.Log().Commit()))
	var got []uint64
	for rec, err := range r.Log().Records() {
		qt.Assert(t, qt.IsNil(err))
		got = append(got, rec.Seq)
	}
	qt.Assert(t, qt.DeepEquals(got, []uint64{16, 17, 18, 19, 20}))
	_, err = r.Log().Record(3)
	qt.Assert(t, qt.ErrorIs(err, ErrNoRecord))
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	p := memory(t, Options{})
	l := p.Log()
	payload := make([]byte, 1024)
	var f [1]uint32
	p.Alloc(f[:])
	frags := []Fragment{{f[0], 0, 1024}}
	round := func() {
		for range 8 {
			l.Append(frags, true)
			l.AppendCopy(payload)
		}
		l.Commit()
		l.Truncate(l.Next() - 1)
	}
	round()
	qt.Assert(t, qt.Equals(testing.AllocsPerRun(100, round), 0))
}

// Opening a pool again and again while its writer appends and truncates never
// reports damage that is not there, nor a record that fails its checksum.
func TestOpenWhileWritten(t *testing.T) {
	path, w := newFile(t, Options{LogEntries: 64})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			for range 3 {
				w.Log().AppendCopy([]byte{byte(i), 1, 2})
			}
			w.Log().Commit()
			if w.Log().Used() > 40 {
				w.Log().Truncate(w.Log().Head() + 9)
			}
		}
	}()
	for range 300 {
		r, err := Open(path, Options{ReadOnly: true})
		qt.Check(t, qt.IsNil(err))
		if err != nil {
			break
		}
		qt.Check(t, qt.IsNil(r.Log().Recovery().Damage))
		r.Close()
	}
	close(stop)
	<-done
}
