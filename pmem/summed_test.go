package pmem

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/go-quicktest/qt"
)

// appendPieces appends a payload that comes in pieces of step bytes.
func appendPieces(p *Pool, payload []byte, step int) (seq uint64, err error) {
	var frags []Fragment
	var sums []uint32
	defer func() {
		for _, f := range frags {
			p.Unref(f.Frame)
		}
	}()
	for len(payload) > 0 {
		piece := payload[:min(len(payload), step)]
		payload = payload[len(piece):]
		begun := max(len(frags)-1, 0)
		room := 0
		if len(frags) > 0 {
			room = p.FrameSize() - int(frags[begun].Len)
		}
		for ; room < len(piece); room += p.FrameSize() {
			var frame [1]uint32
			if p.Alloc(frame[:]) == 0 {
				return 0, p.Log().noFrames(1, 0)
			}
			frags, sums = append(frags, Fragment{Frame: frame[0]}), append(sums, 0)
		}
		n, err := p.CopyIn(frags[begun:], sums[begun:], piece)
		if err != nil {
			return 0, err
		}
		if n < len(piece) {
			return 0, fmt.Errorf("%d of %d bytes copied", n, len(piece))
		}
	}
	return p.Log().AppendSummed(frags, sums, false)
}

// TestAppendSummed: pieces of all lengths come back as one record whose checksums
// hold, and the frames are the log's alone.
func TestAppendSummed(t *testing.T) {
	p, err := NewMemory("summed", Options{Size: 8 << 20})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	free := p.Free()
	for n := 0; n < 9000; n += 61 {
		payload := bytes.Repeat([]byte{byte(n), 3, 5}, n)[:n]
		seq, err := appendPieces(p, payload, 1+n*37%5000)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(p.Log().Commit()))
		r, err := p.Log().Record(seq)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsNil(r.Verify()))
		var got bytes.Buffer
		_, err = r.WriteTo(&got)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.IsTrue(bytes.Equal(got.Bytes(), payload)), qt.Commentf("%d bytes", n))
		qt.Assert(t, qt.IsNil(p.Log().Truncate(seq)))
	}
	qt.Check(t, qt.Equals(p.Free(), free))

	_, err = p.CopyIn([]Fragment{{Frame: p.FirstFrame(), Off: 1, Len: uint16(p.FrameSize())}}, make([]uint32, 1), nil)
	qt.Check(t, qt.ErrorIs(err, ErrFragment))
	_, err = p.CopyIn([]Fragment{{Frame: p.FirstFrame()}, {Frame: p.FirstFrame() + 1, Len: 1}}, make([]uint32, 2), nil)
	qt.Check(t, qt.ErrorIs(err, ErrFragment))
	_, err = p.CopyIn(make([]Fragment, 1), make([]uint32, 1), nil)
	qt.Check(t, qt.ErrorIs(err, ErrFragment))
	_, err = p.CopyIn(make([]Fragment, 0), make([]uint32, 1), nil)
	qt.Check(t, qt.ErrorIs(err, ErrFragment))
	_, err = p.Log().AppendSummed(make([]Fragment, 1), nil, false)
	qt.Check(t, qt.ErrorMatches(err, "append to log: 1 fragments with 0 checksums"))
}
