package pmem

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"github.com/go-quicktest/qt"
	"pgregory.net/rapid"
)

// Random use of a pool file, closed and opened at any time, against a model.
func TestLogModel(t *testing.T) {
	dir := shm(t)
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(dir, "model")
		p, err := Create(path, Options{Size: 256 << 10, LogEntries: 64, Overwrite: true})
		qt.Assert(tb(t), qt.IsNil(err))
		defer func() { p.Close() }()
		all := p.Free()
		var committed, staged [][]byte
		head := uint64(1)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				b := rapid.SliceOfN(rapid.Byte(), 0, 5000).Draw(t, "payload")
				seq, err := p.Log().AppendCopy(b)
				if errors.Is(err, ErrFull) {
					t.Skip("full")
				}
				qt.Assert(tb(t), qt.IsNil(err))
				staged = append(staged, b)
				qt.Assert(tb(t), qt.Equals(seq, head+uint64(len(committed)+len(staged))-1))
			},
			"commit": func(t *rapid.T) {
				qt.Assert(tb(t), qt.IsNil(p.Log().Commit()))
				committed, staged = append(committed, staged...), nil
			},
			"truncate": func(t *rapid.T) {
				n := rapid.IntRange(0, len(committed)+1).Draw(t, "n") // one too many is none too many
				qt.Assert(tb(t), qt.IsNil(p.Log().Truncate(head+uint64(n)-1)))
				n = min(n, len(committed))
				head += uint64(n)
				committed = committed[n:]
			},
			"cut": func(t *rapid.T) {
				n := rapid.IntRange(0, len(committed)+1).Draw(t, "n") // one too many is none
				qt.Assert(tb(t), qt.IsNil(p.Log().TruncateAfter(head+uint64(n)-1)))
				committed, staged = committed[:min(n, len(committed))], nil
			},
			"discard": func(t *rapid.T) {
				qt.Assert(tb(t), qt.IsNil(p.Log().Discard()))
				staged = nil
			},
			"reopen": func(t *rapid.T) {
				p.Close()
				p, err = Open(path, Options{})
				qt.Assert(tb(t), qt.IsNil(err))
				staged = nil
			},
			"": func(t *rapid.T) {
				l := p.Log()
				qt.Assert(tb(t), qt.Equals(l.Head(), head))
				qt.Assert(tb(t), qt.Equals(l.Len(), len(committed)))
				i, frames := 0, 0
				for r, err := range l.Records() {
					qt.Assert(tb(t), qt.IsNil(err))
					qt.Assert(tb(t), qt.IsNil(r.Verify()))
					qt.Assert(tb(t), qt.Equals(r.Seq, head+uint64(i)))
					var b bytes.Buffer
					r.WriteTo(&b)
					qt.Assert(tb(t), qt.Equals(b.String(), string(committed[i])))
					again, err := l.Record(r.Seq)
					qt.Assert(tb(t), qt.IsNil(err))
					qt.Assert(tb(t), qt.DeepEquals(again.Fragments, r.Fragments))
					frames += len(r.Fragments)
					i++
				}
				qt.Assert(tb(t), qt.Equals(i, len(committed)))
				for _, b := range staged {
					frames += (len(b) + p.FrameSize() - 1) / p.FrameSize()
				}
				qt.Assert(tb(t), qt.Equals(p.Free(), all-frames))
			},
		})
	})
}
