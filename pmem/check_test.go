package pmem

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// filled makes a pool with records, a value, a named frame and a chain.
func filled(t testing.TB, o Options) (string, *Pool) {
	t.Helper()
	path, p := newFile(t, o)
	for i := range 50 {
		_, err := p.Log().AppendCopyHeader([]byte(strings.Repeat("h", i)), killPayload(uint64(i)))
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Assert(t, qt.IsNil(p.Log().Commit()))
	qt.Assert(t, qt.IsNil(p.Log().Truncate(10)))
	var f [1]uint32
	p.Alloc(f[:])
	clear(p.Frame(f[0]))
	copy(p.Frame(f[0]), "named")
	qt.Assert(t, qt.IsNil(p.Persist(p.Offset(f[0], 0), uint64(p.FrameSize()))))
	qt.Assert(t, qt.IsNil(p.SetRoot("frame", Root{Kind: KindFrame, Frame: f[0], Value: [RootValue]byte{5}})))
	qt.Assert(t, qt.IsNil(p.SetRoot("value", Root{Value: [RootValue]byte{1, 2, 3}})))
	return path, p
}

func checkFile(t testing.TB, path string) (CheckResult, []string) {
	t.Helper()
	p, err := Open(path, Options{ReadOnly: true})
	if err != nil {
		return CheckResult{}, []string{err.Error()}
	}
	defer p.Close()
	var found []string
	res, err := p.Check(t.Context(), nil, func(err error) { found = append(found, err.Error()) })
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(res.Problems, len(found)))
	return res, found
}

func TestCheck(t *testing.T) {
	path, p := filled(t, Options{})
	used := int(p.Frames()-p.FirstFrame()) - p.Free()
	g := p.g
	r, err := p.Log().Record(20)
	qt.Assert(t, qt.IsNil(err))
	payload := int64(p.Offset(r.Fragments[0].Frame, 3))
	p.Close()
	res, found := checkFile(t, path)
	qt.Assert(t, qt.HasLen(found, 0))
	qt.Assert(t, qt.Equals(int(res.Used), used))
	qt.Assert(t, qt.Equals(res.Records, 40))
	qt.Assert(t, qt.Equals(res.Structures, 2))

	for _, tc := range []struct {
		off  int64
		want string
	}{
		{70, "superblock, copy 1: damaged pool"},
		{2048 + 70, "superblock, copy 2: damaged pool"},
		{2*2048 + 9, "log head, copy 1: damaged pool"},
		{3*2048 + 9, "log head, copy 2: damaged pool"},
		{int64(rootsOffset(&g, 0)) + 100, "table of roots, copy 1: damaged pool"},
		{int64(rootsOffset(&g, 1)) + 100, "table of roots, copy 2: damaged pool"},
		{payload, "log: record 20, fragment 0 in frame"},
		{int64(g.logOff) + 60*entryLen, "log entry 60, of record"},
	} {
		flip(t, path, tc.off)
		_, found := checkFile(t, path)
		qt.Check(t, qt.HasLen(found, 1), qt.Commentf("%s", tc.want))
		qt.Check(t, qt.StringContains(fmt.Sprint(found), tc.want))
		flip(t, path, tc.off)
	}
}

// contents is everything that a user can find in a pool.
func contents(t testing.TB, p *Pool) string {
	var b strings.Builder
	for r, err := range p.Log().Records() {
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(r.Verify()))
		fmt.Fprintf(&b, "%d %q %q\n", r.Seq, r.Header, payloadOf(t, r))
	}
	for name, r := range p.Roots() {
		fmt.Fprintf(&b, "%s %d %v\n", name, r.Kind, r.Value)
		if r.Kind == KindFrame {
			fmt.Fprintf(&b, "%q\n", bytes.TrimRight(p.Frame(r.Frame), "\x00"))
		}
	}
	return b.String()
}

func TestDumpRestore(t *testing.T) {
	_, p := filled(t, Options{})
	var archive bytes.Buffer
	var written uint64
	qt.Assert(t, qt.IsNil(p.Dump(&archive, func(n uint64) { written = n })))
	qt.Assert(t, qt.Equals(written, uint64(archive.Len())))
	want := contents(t, p)
	for i, o := range []Options{{Size: 4 << 20, FrameSize: 4096}, {Size: 512 << 10}, {Size: testSize, LogEntries: 500}} {
		dir := shm(t)
		if i == 0 {
			dir = onDisk(t)
		}
		path := filepath.Join(dir, "new")
		q, err := Restore(bytes.NewReader(archive.Bytes()), path, o)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(contents(t, q), want))
		qt.Assert(t, qt.Equals(q.Log().Next(), p.Log().Next()))
		qt.Assert(t, qt.IsNil(q.Close()))
		_, found := checkFile(t, path)
		qt.Assert(t, qt.HasLen(found, 0))
	}

	// What does not fit, or is damaged, leaves no file.
	path := filepath.Join(shm(t), "new")
	_, err := Restore(bytes.NewReader(archive.Bytes()), path, Options{Size: 260 << 10, LogEntries: 32})
	qt.Assert(t, qt.ErrorIs(err, ErrFull))
	for _, n := range []int{0, 5, 100, archive.Len() / 2, archive.Len() - 1} {
		_, err := Restore(bytes.NewReader(archive.Bytes()[:n]), path, Options{Size: testSize})
		qt.Assert(t, qt.ErrorIs(err, ErrArchive), qt.Commentf("%d bytes", n))
	}
	for i := 0; i < archive.Len(); i += 1 + archive.Len()/300 {
		b := bytes.Clone(archive.Bytes())
		b[i] ^= 4
		_, err := Restore(bytes.NewReader(b), path, Options{Size: testSize})
		qt.Assert(t, qt.ErrorIs(err, ErrArchive), qt.Commentf("byte %d", i))
	}
	_, err = os.Stat(path)
	qt.Assert(t, qt.ErrorIs(err, os.ErrNotExist))
}

// A damaged pool is not dumped as if it were whole.
func TestDumpVerifies(t *testing.T) {
	_, p := filled(t, Options{})
	r, err := p.Log().Record(20)
	qt.Assert(t, qt.IsNil(err))
	r.Payload(0)[0] ^= 1
	err = p.Dump(io.Discard, nil)
	qt.Assert(t, qt.ErrorIs(err, ErrChecksum))
	qt.Assert(t, qt.StringContains(err.Error(), "record 20"))
}

func TestGrow(t *testing.T) {
	for _, dir := range []string{shm(t), onDisk(t)} {
		path, p := filled(t, Options{})
		b, err := os.ReadFile(path)
		qt.Assert(t, qt.IsNil(err))
		want, first, free := contents(t, p), p.FirstFrame(), p.Free()
		qt.Assert(t, qt.ErrorIs(Grow(path, 2*testSize), ErrLocked))
		path = filepath.Join(dir, "copy")
		qt.Assert(t, qt.IsNil(os.WriteFile(path, b, 0o600)))
		qt.Assert(t, qt.ErrorIs(Grow(path, testSize/2), ErrSize))
		qt.Assert(t, qt.ErrorIs(Grow(path, 1<<44), ErrSize))
		qt.Assert(t, qt.IsNil(Grow(path, testSize)))
		qt.Assert(t, qt.IsNil(Grow(path, 3*testSize+1)))
		q, err := Open(path, Options{})
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(len(q.Mem()), 3*testSize+4096))
		qt.Assert(t, qt.Equals(q.FirstFrame(), first))
		qt.Assert(t, qt.Equals(q.Free(), free+(2*testSize+4096)/2048))
		qt.Assert(t, qt.Equals(contents(t, q), want))
		q.Close()
		_, found := checkFile(t, path)
		qt.Assert(t, qt.HasLen(found, 0))
	}
}
