package raftlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/hashicorp/raft"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/raftlog"
)

func newStore(t testing.TB, o pmem.Options) (*raftlog.Store, *pmem.Pool) {
	t.Helper()
	if o.Size == 0 {
		o.Size = 1 << 20
	}
	p, err := pmem.NewMemory("raftlog-test", o)
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { p.Close() })
	s, err := raftlog.Open(p)
	qt.Assert(t, qt.IsNil(err))
	return s, p
}

func entry(index uint64, data string) *raft.Log {
	return &raft.Log{Index: index, Term: 7, Type: raft.LogCommand, Data: []byte(data)}
}

func entries(from, to uint64) (all []*raft.Log) {
	for i := from; i <= to; i++ {
		all = append(all, entry(i, fmt.Sprintf("entry %d", i)))
	}
	return all
}

func indices(t testing.TB, s *raftlog.Store) [2]uint64 {
	t.Helper()
	first, err := s.FirstIndex()
	qt.Assert(t, qt.IsNil(err))
	last, err := s.LastIndex()
	qt.Assert(t, qt.IsNil(err))
	return [2]uint64{first, last}
}

func same(a, b *raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && bytes.Equal(a.Data, b.Data) &&
		bytes.Equal(a.Extensions, b.Extensions) && a.AppendedAt.Equal(b.AppendedAt)
}

func TestEmpty(t *testing.T) {
	s, _ := newStore(t, pmem.Options{})
	qt.Assert(t, qt.Equals(indices(t, s), [2]uint64{}))
	qt.Assert(t, qt.ErrorIs(s.GetLog(1, new(raft.Log)), raft.ErrLogNotFound))
	qt.Assert(t, qt.ErrorIs(s.GetLog(0, new(raft.Log)), raft.ErrLogNotFound))
	qt.Assert(t, qt.IsNil(s.DeleteRange(1, 10)))
	qt.Assert(t, qt.IsNil(s.StoreLogs(nil)))
	qt.Assert(t, qt.IsTrue(s.IsMonotonic()))
}

// All that an entry has comes back, whatever its length.
func TestStoreAndGet(t *testing.T) {
	s, _ := newStore(t, pmem.Options{})
	var all []*raft.Log
	for i, n := range []int{0, 1, 100, 1024, 1900, 2048, 2049, 20_000} {
		l := entry(uint64(i+1), strings.Repeat(string(rune('a'+i)), n))
		l.Type = raft.LogType(i % 6)
		l.Term = uint64(i) << 40
		if i%2 == 1 {
			l.Extensions = bytes.Repeat([]byte{byte(i)}, i*70)
			l.AppendedAt = time.Unix(1_700_000_000, int64(i))
		}
		all = append(all, l)
	}
	qt.Assert(t, qt.IsNil(s.StoreLog(all[0])))
	qt.Assert(t, qt.IsNil(s.StoreLogs(all[1:])))
	qt.Assert(t, qt.Equals(indices(t, s), [2]uint64{1, 8}))
	for _, want := range all {
		var got raft.Log
		qt.Assert(t, qt.IsNil(s.GetLog(want.Index, &got)))
		qt.Assert(t, qt.IsTrue(same(&got, want)), qt.Commentf("%+v, want %+v", got, want))
	}
	qt.Assert(t, qt.ErrorIs(s.GetLog(9, new(raft.Log)), raft.ErrLogNotFound))
}

func TestDeleteRange(t *testing.T) {
	for _, tc := range []struct {
		from, to, first, last uint64
	}{
		{11, 13, 14, 20}, {1, 13, 14, 20}, {18, 20, 11, 17}, {18, 99, 11, 17}, {11, 20, 0, 0},
		{0, ^uint64(0), 0, 0}, {21, 30, 11, 20}, {1, 10, 11, 20}, {15, 14, 11, 20}, {20, 20, 11, 19},
	} {
		s, _ := newStore(t, pmem.Options{})
		qt.Assert(t, qt.IsNil(s.StoreLogs(entries(11, 20))))
		qt.Assert(t, qt.IsNil(s.DeleteRange(tc.from, tc.to)))
		qt.Assert(t, qt.Equals(indices(t, s), [2]uint64{tc.first, tc.last}), qt.Commentf("%+v", tc))
	}
	s, _ := newStore(t, pmem.Options{})
	qt.Assert(t, qt.IsNil(s.StoreLogs(entries(11, 20))))
	err := s.DeleteRange(12, 19)
	qt.Assert(t, qt.ErrorIs(err, raftlog.ErrOrder))
	qt.Assert(t, qt.ErrorMatches(err, ".*there are 11 to 20"))
}

// Entries follow each other; behind an empty log any may come, as after a
// snapshot, also a smaller one.
func TestOrder(t *testing.T) {
	s, _ := newStore(t, pmem.Options{})
	qt.Assert(t, qt.IsNil(s.StoreLogs(entries(100, 105))))
	for _, bad := range [][]*raft.Log{entries(107, 107), entries(105, 106), {entry(106, ""), entry(108, "")}} {
		qt.Assert(t, qt.ErrorIs(s.StoreLogs(bad), raftlog.ErrOrder))
		qt.Assert(t, qt.Equals(indices(t, s), [2]uint64{100, 105}))
	}
	qt.Assert(t, qt.IsNil(s.DeleteRange(100, 105)))
	qt.Assert(t, qt.IsNil(s.StoreLogs(entries(5, 9))))
	qt.Assert(t, qt.Equals(indices(t, s), [2]uint64{5, 9}))
	var l raft.Log
	qt.Assert(t, qt.IsNil(s.GetLog(7, &l)))
	qt.Assert(t, qt.Equals(string(l.Data), "entry 7"))
}

// Entries for which there is no room leave nothing behind, and with old ones
// deleted there is room.
func TestFull(t *testing.T) {
	s, p := newStore(t, pmem.Options{Size: 256 << 10})
	qt.Assert(t, qt.IsNil(s.StoreLogs(entries(1, 3))))
	free, used := p.Free(), p.Log().Used()
	large := entry(5, strings.Repeat("x", (free-1)*p.FrameSize()))
	huge := entry(5, strings.Repeat("x", 2*free*p.FrameSize()))
	err := s.StoreLogs([]*raft.Log{entry(4, "small"), huge})
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrFull))
	qt.Assert(t, qt.ErrorMatches(err, "store raft entries 4 to 5: .*"))
	qt.Assert(t, qt.Equals(indices(t, s), [2]uint64{1, 3}))
	qt.Assert(t, qt.Equals(p.Log().Used(), used))
	qt.Assert(t, qt.IsTrue(p.Free() >= free-1), qt.Commentf("%d free, before %d", p.Free(), free))
	qt.Assert(t, qt.IsNil(s.DeleteRange(1, 3)))
	qt.Assert(t, qt.IsNil(s.StoreLogs([]*raft.Log{entry(4, "small"), large})))
	qt.Assert(t, qt.IsNil(s.DeleteRange(1, 5)))
	s.Close()
	qt.Assert(t, qt.Equals(p.Free(), int(p.Frames()-p.FirstFrame())))
}

func TestStable(t *testing.T) {
	s, p := newStore(t, pmem.Options{})
	free := p.Free()
	_, err := s.Get([]byte("key"))
	qt.Assert(t, qt.ErrorMatches(err, "not found")) // raft compares the text
	_, err = s.GetUint64([]byte("key"))
	qt.Assert(t, qt.ErrorMatches(err, "not found"))
	for _, n := range []int{0, 1, 62, 63, 2048, 100, 70, 5} {
		want := bytes.Repeat([]byte{byte(n)}, n)
		qt.Assert(t, qt.IsNil(s.Set([]byte("key"), want)))
		got, err := s.Get([]byte("key"))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.DeepEquals(got, want))
	}
	qt.Assert(t, qt.Equals(p.Free(), free))
	qt.Assert(t, qt.ErrorIs(s.Set([]byte("key"), make([]byte, 2049)), pmem.ErrSize))
	qt.Assert(t, qt.ErrorIs(s.Set(bytes.Repeat([]byte("k"), raftlog.MaxKey+1), nil), pmem.ErrRoot))
	qt.Assert(t, qt.IsNil(s.SetUint64([]byte("number"), 1<<63+5)))
	n, err := s.GetUint64([]byte("number"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(n, 1<<63+5))
	_, err = s.GetUint64([]byte("key"))
	qt.Assert(t, qt.ErrorMatches(err, `get "key": its value has 5 bytes, and is no number`))
}

// A pool that holds something else is refused.
func TestForeignPool(t *testing.T) {
	p, err := pmem.NewMemory("foreign", pmem.Options{Size: 1 << 20})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	_, err = p.Log().AppendCopy([]byte("mine"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Log().Commit()))
	_, err = raftlog.Open(p)
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrPurpose))
	qt.Assert(t, qt.IsNil(p.Claim("kv")))
	_, err = raftlog.Open(p)
	qt.Assert(t, qt.ErrorIs(err, pmem.ErrPurpose))
}

// A byte that rots is found when the entry is read, and others are not concerned.
func TestRot(t *testing.T) {
	s, p := newStore(t, pmem.Options{})
	qt.Assert(t, qt.IsNil(s.StoreLogs(entries(1, 3))))
	r, err := p.Log().Record(2)
	qt.Assert(t, qt.IsNil(err))
	r.Payload(0)[3] ^= 1
	qt.Assert(t, qt.ErrorIs(s.GetLog(2, new(raft.Log)), pmem.ErrChecksum))
	qt.Assert(t, qt.IsNil(s.GetLog(3, new(raft.Log))))
}

// What readers get is whole while others append, cut and truncate.
func TestReadersAndWriter(t *testing.T) {
	s, _ := newStore(t, pmem.Options{})
	qt.Assert(t, qt.IsNil(s.StoreLogs(entries(1, 50))))
	stop, done := make(chan struct{}), make(chan error)
	for range 2 {
		go func() {
			for i := uint64(0); ; i++ {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				first, _ := s.FirstIndex()
				var l raft.Log
				err := s.GetLog(first+i%50, &l)
				if errors.Is(err, raft.ErrLogNotFound) {
					continue
				}
				if want := fmt.Sprintf("entry %d", l.Index); err != nil || string(l.Data) != want {
					<-stop
					done <- fmt.Errorf("%q, want %q: %w", l.Data, want, err)
					return
				}
			}
		}()
	}
	for i := range uint64(300) {
		from := 51 + 7*i
		qt.Check(t, qt.IsNil(s.StoreLogs(entries(from, from+9))))
		qt.Check(t, qt.IsNil(s.DeleteRange(from+7, from+9)))
		qt.Check(t, qt.IsNil(s.DeleteRange(0, from-45)))
	}
	close(stop)
	for range 2 {
		qt.Check(t, qt.IsNil(<-done))
	}
}

// A file that is closed and opened again has it all, on a disk too.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pool")
	p, err := pmem.Create(path, pmem.Options{Size: 1 << 20})
	qt.Assert(t, qt.IsNil(err))
	s, err := raftlog.Open(p)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(s.StoreLogs(entries(40, 60))))
	qt.Assert(t, qt.IsNil(s.DeleteRange(1, 44)))
	qt.Assert(t, qt.IsNil(s.DeleteRange(58, 99)))
	qt.Assert(t, qt.IsNil(s.SetUint64([]byte("CurrentTerm"), 3)))
	s.Close()
	qt.Assert(t, qt.IsNil(p.Close()))
	p, err = pmem.Open(path, pmem.Options{})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	s, err = raftlog.Open(p)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(indices(t, s), [2]uint64{45, 57}))
	n, err := s.GetUint64([]byte("CurrentTerm"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(n, 3))
	var l raft.Log
	qt.Assert(t, qt.IsNil(s.GetLog(50, &l)))
	qt.Assert(t, qt.IsTrue(same(&l, entry(50, "entry 50"))))
}
