package btree

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/pastenet/paste/pmem"
)

// Limits of what a tree stores.
const (
	// MaxKey is the length of the longest key in bytes.
	MaxKey = 255
	// MaxInline is the length of the longest value that is stored in the tree itself.
	MaxInline = 64

	inCell = 8 // so many fragments lie in the leaf; more in overflow frames
)

// Errors for what cannot be stored.
var (
	ErrKeyTooLong   = fmt.Errorf("key longer than %d bytes", MaxKey)
	ErrValueTooLong = errors.New("value too long")
)

// Value is what a key leads to: a few bytes in the tree itself, or fragments
// of frames. The tree holds a reference to a fragment's frame as long as any
// generation that can be read has the value.
type Value struct {
	// Inline is the value if it has no Frags. When read, it lies in the pool.
	Inline []byte
	// Frags hold the value, in order; none of them is empty.
	Frags []pmem.Fragment
	// Len is the sum of the fragments' lengths in bytes.
	Len uint32
	// Sum is the CRC-32C of the fragments' content, in order.
	Sum uint32
	// Pre is how many bytes at the beginning of the first fragment are not the
	// value but what its writer keeps in front of it, such as the head of the
	// message in which it will be sent. Len and Sum count them.
	Pre uint8
}

// Size is the length of the value in bytes, without what lies in front of it.
func (v *Value) Size() int64 {
	if len(v.Frags) == 0 {
		return int64(len(v.Inline))
	}
	return int64(v.Len) - int64(v.Pre)
}

// The first byte of an encoded value.
const (
	kindInline = iota + 1
	kindFrags
	kindOverflow
)

// Lengths of encoded values, see the package documentation.
const (
	fragLen     = 8
	fragsLen    = 11
	overflowLen = 18
	maxEncoded  = max(1+MaxInline, fragsLen+inCell*fragLen, overflowLen)
)

func putFrag(b []byte, f pmem.Fragment) {
	le.PutUint32(b, f.Frame)
	le.PutUint16(b[4:], f.Off)
	le.PutUint16(b[6:], f.Len)
}

func getFrag(b []byte) pmem.Fragment {
	return pmem.Fragment{Frame: le.Uint32(b), Off: le.Uint16(b[4:]), Len: le.Uint16(b[6:])}
}

// maxFragments is how many fragments a value may have. Programs that know only
// version 2 of the pool format take more for damage.
func maxFragments(p *pmem.Pool) int {
	if p.Version() == 2 {
		return 1<<16 - 2
	}
	return 1 << 24
}

// checkValue refuses what could not be read back.
func checkValue(p *pmem.Pool, v *Value) error {
	if len(v.Frags) == 0 {
		if len(v.Inline) > MaxInline {
			return fmt.Errorf("%w: %d bytes inline, at most %d", ErrValueTooLong, len(v.Inline), MaxInline)
		}
		return nil
	}
	if most := maxFragments(p); len(v.Frags) > most {
		return fmt.Errorf("%w: %d fragments, at most %d", ErrValueTooLong, len(v.Frags), most)
	}
	sum := uint64(0)
	for i, f := range v.Frags {
		if f.Len == 0 || int(f.Off)+int(f.Len) > p.FrameSize() || p.Frame(f.Frame) == nil {
			return fmt.Errorf("%w %d: bytes %d to %d of frame %d", pmem.ErrFragment, i, f.Off, int(f.Off)+int(f.Len), f.Frame)
		}
		sum += uint64(f.Len)
	}
	if sum > math.MaxUint32 || uint32(sum) != v.Len || uint16(v.Pre) > v.Frags[0].Len {
		return fmt.Errorf("%w: fragments of %d bytes in all, length %d, %d of them in front", pmem.ErrFragment, sum, v.Len, v.Pre)
	}
	return nil
}

// encode appends the value to b; overflow is the first frame of its fragments
// if they do not fit in a leaf.
func (v *Value) encode(b []byte, overflow uint32) []byte {
	switch {
	case len(v.Frags) == 0:
		return append(append(b, kindInline), v.Inline...)
	case len(v.Frags) <= inCell:
		b = append(b, kindFrags, v.Pre, byte(len(v.Frags)))
		b = le.AppendUint32(b, v.Len)
		b = le.AppendUint32(b, v.Sum)
		for _, f := range v.Frags {
			b = le.AppendUint32(b, f.Frame)
			b = le.AppendUint16(b, f.Off)
			b = le.AppendUint16(b, f.Len)
		}
		return b
	}
	b = append(b, kindOverflow, v.Pre)
	b = le.AppendUint32(b, uint32(len(v.Frags)))
	b = le.AppendUint32(b, v.Len)
	b = le.AppendUint32(b, v.Sum)
	return le.AppendUint32(b, overflow)
}

// decode reads an encoded value of node n into v, whose Frags are used again.
func (t *view) decode(n node, b []byte, v *Value) {
	v.Inline, v.Frags, v.Len, v.Sum, v.Pre = nil, v.Frags[:0], 0, 0, 0
	switch {
	case len(b) > 0 && b[0] == kindInline:
		v.Inline = b[1:]
		return
	case len(b) > fragsLen && b[0] == kindFrags && len(b) == fragsLen+fragLen*int(b[2]):
		v.Pre, v.Len, v.Sum = b[1], le.Uint32(b[3:]), le.Uint32(b[7:])
		for b = b[fragsLen:]; len(b) > 0; b = b[fragLen:] {
			v.Frags = append(v.Frags, getFrag(b))
		}
	case len(b) == overflowLen && b[0] == kindOverflow:
		v.Pre, v.Len, v.Sum = b[1], le.Uint32(b[6:]), le.Uint32(b[10:])
		t.overflow(n, b, func(_ uint32, o overflowFrame) {
			for i := range o.count() {
				v.Frags = append(v.Frags, getFrag(o[overflowHead+fragLen*i:]))
			}
		})
	default:
		n.bad("a value that cannot be decoded")
	}
	sum := uint64(0)
	for _, f := range v.Frags {
		if sum += uint64(f.Len); f.Len == 0 || int(f.Off)+int(f.Len) > t.size || t.p.Frame(f.Frame) == nil {
			n.bad("a value's fragment lies outside of the data frames: bytes %d to %d of frame %d", f.Off, int(f.Off)+int(f.Len), f.Frame)
		}
	}
	if sum != uint64(v.Len) || uint16(v.Pre) > v.Frags[0].Len {
		n.bad("a value's length contradicts its fragments")
	}
}

// overflowFrame holds fragments of one value that has many. It is written
// once.
type overflowFrame []byte

const (
	overflowMagic = 0x4f545450 // "PTTO"
	overflowHead  = 24
)

func (o overflowFrame) count() int   { return int(le.Uint16(o[20:])) }
func (o overflowFrame) next() uint32 { return le.Uint32(o[16:]) }

func overflowFrames(size, frags int) int {
	if frags <= inCell {
		return 0
	}
	per := (size - overflowHead) / fragLen
	return (frags + per - 1) / per
}

// writeOverflow stores a value's fragments in frames of the tree's reserve
// and returns the first of them.
func (t *Tree) writeOverflow(frags []pmem.Fragment) uint32 {
	per := (t.size - overflowHead) / fragLen
	next := uint32(0)
	for i := (len(frags) - 1) / per * per; i >= 0; i -= per { // the last piece first
		f := t.takeFrame()
		o := overflowFrame(t.p.Frame(f))
		piece := frags[i:min(len(frags), i+per)]
		clear(o[:overflowHead])
		le.PutUint32(o, overflowMagic)
		le.PutUint64(o[8:], t.gen)
		le.PutUint32(o[16:], next)
		le.PutUint16(o[20:], uint16(len(piece)))
		for j, g := range piece {
			putFrag(o[overflowHead+fragLen*j:], g)
		}
		clear(o[overflowHead+fragLen*len(piece):])
		le.PutUint32(o[4:], crc32.Update(t.seed^f, castagnoli, o[8:]))
		next = f
	}
	return next
}

// overflow calls fn with each frame of a value's fragments.
func (t *view) overflow(n node, b []byte, fn func(frame uint32, o overflowFrame)) {
	left, f := int(le.Uint32(b[2:])), le.Uint32(b[14:])
	if left == 0 || left > maxFragments(t.p) || uint64(left) > uint64(le.Uint32(b[6:])) {
		n.bad("a value of %d bytes in %d fragments", le.Uint32(b[6:]), left)
	}
	per := (t.size - overflowHead) / fragLen
	for left > 0 {
		o := overflowFrame(t.p.Frame(f))
		switch {
		case o == nil || le.Uint32(o) != overflowMagic:
			n.bad("frame %d does not hold a value's fragments", f)
		case le.Uint32(o[4:]) != crc32.Update(t.seed^f, castagnoli, o[8:]):
			n.bad("checksum mismatch of a value's fragments in frame %d", f)
		case o.count() != min(left, per): // so that a circle ends
			n.bad("frame %d has %d of a value's %d last fragments", f, o.count(), left)
		}
		left -= o.count()
		fn(f, o)
		f = o.next()
	}
}

// SumOf returns the CRC-32C of fragments, in order: a Value's Sum. As AppendTo,
// it has no error for memory that is gone.
func SumOf(p *pmem.Pool, frags []pmem.Fragment) uint32 {
	var sum uint32
	for _, f := range frags {
		sum = crc32.Update(sum, castagnoli, p.Frame(f.Frame)[f.Off:int(f.Off)+int(f.Len)])
	}
	return sum
}

// Verify compares the value's content with its checksum: pmem.ErrChecksum.
func (v *Value) Verify(p *pmem.Pool) error {
	if len(v.Frags) == 0 {
		return nil
	}
	var sum uint32
	if err := p.Guard(func() error { sum = SumOf(p, v.Frags); return nil }); err != nil || sum == v.Sum {
		return err
	}
	return fmt.Errorf("value of %d bytes from frame %d on: %w", v.Size(), v.Frags[0].Frame, pmem.ErrChecksum)
}

// WriteTo writes the value, without what lies in front of it, to w.
func (v *Value) WriteTo(p *pmem.Pool, w io.Writer) (n int64, err error) {
	err = p.Guard(func() error {
		n, err = v.writeTo(p, w)
		return err
	})
	return n, err
}

func (v *Value) writeTo(p *pmem.Pool, w io.Writer) (int64, error) {
	if len(v.Frags) == 0 {
		n, err := w.Write(v.Inline)
		return int64(n), err
	}
	var sum int64
	pre := int(v.Pre)
	for _, f := range v.Frags {
		n, err := w.Write(p.Frame(f.Frame)[int(f.Off)+pre : int(f.Off)+int(f.Len)])
		sum += int64(n)
		if err != nil {
			return sum, err
		}
		pre = 0
	}
	return sum, nil
}

// AppendTo appends the value, without what lies in front of it, to b. It is for
// memory that stays; pmem.Pool.Guard is for a file that may be truncated.
func (v *Value) AppendTo(p *pmem.Pool, b []byte) []byte {
	if len(v.Frags) == 0 {
		return append(b, v.Inline...)
	}
	pre := int(v.Pre)
	for _, f := range v.Frags {
		b = append(b, p.Frame(f.Frame)[int(f.Off)+pre:int(f.Off)+int(f.Len)]...)
		pre = 0
	}
	return b
}
