package pmem_test

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pmem"
)

// image is a pool that is about to be damaged, with what is needed to do that
// under a right checksum. Offsets are those of the package documentation, for
// frames of 2048 bytes.
type image struct {
	b    []byte
	seed uint32
	p    *pmem.Pool // the sound one, to find things in
	t    *testing.T
}

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func newImage(t *testing.T, b []byte) *image {
	p, err := openBytes(t, "good", b, pmem.Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	return &image{b: b, seed: crc32.Checksum(b[64:80], castagnoli), p: p, t: t}
}

// super, head, roots and root are what exists twice.
func (m *image) super(copy int) []byte { return m.b[copy*2048:][:128] }
func (m *image) head(copy int) []byte  { return m.b[4096+copy*2048:][:64] }
func (m *image) roots(copy int) []byte { return m.b[8192+copy*8192:][:8192] }
func (m *image) root(copy, i int) []byte {
	return m.roots(copy)[64+128*i:][:128]
}

// Roots are in the order of their names.
const (
	rootFrame = iota
	rootTree
	rootValue
)

// entry is entry i of the log's record seq.
func (m *image) entry(seq uint64, i uint16) []byte {
	for b := m.b[le.Uint64(m.b[40:]):]; ; b = b[64:] {
		if le.Uint64(b[8:]) == seq && le.Uint16(b[26:]) == i {
			return b[:64]
		}
	}
}

// payload is the first piece of record seq's.
func (m *image) payload(seq uint64) []byte {
	r, err := m.p.Log().Record(seq)
	qt.Assert(m.t, qt.IsNil(err))
	f := r.Fragments[0]
	return m.b[m.p.Offset(f.Frame, int(f.Off)):][:f.Len]
}

func (m *image) frame(i uint32) []byte { return m.b[m.p.Offset(i, 0):][:2048] }

// node is the tree's root or, with i from 0, its i-th leaf.
func (m *image) node(i int) []byte {
	r, _ := m.p.Root("tree")
	n := m.frame(r.Frame)
	if i < 0 {
		return n
	}
	cell := le.Uint16(n[32+2*i:])
	return m.frame(le.Uint32(n[cell+1:]))
}

// overflow is the first frame with the fragments of a value that has many.
func (m *image) overflow() []byte {
	for i := m.p.FirstFrame(); ; i++ {
		if b := m.frame(i); string(b[:4]) == "PTTO" {
			return b
		}
	}
}

func (m *image) sealSuper(copy int) {
	b := m.super(copy)
	le.PutUint32(b[124:], crc32.Checksum(b[:124], castagnoli))
}

// seal makes the checksum of a log entry or a log head right.
func (m *image) seal(b []byte) {
	le.PutUint32(b[60:], crc32.Update(m.seed, castagnoli, b[:60]))
}

func (m *image) sealRoots(copy int) {
	b := m.roots(copy)
	sum := crc32.Update(m.seed, castagnoli, b[:60])
	le.PutUint32(b[60:], crc32.Update(sum, castagnoli, b[64:64+128*le.Uint32(b[16:])]))
}

func (m *image) sealNode(n []byte) {
	le.PutUint32(n[4:], crc32.Update(m.seed, castagnoli, n[8:]))
}

// both does something to both copies.
func both(f func(copy int)) {
	f(0)
	f(1)
}

// damage is one pool of the corpus.
type damage struct {
	name  string
	what  string // was done to it
	class error  // that opening or checking it finds; nil: none
	opens bool   // for writing
	// How many records and keys may be lost.
	records, keys int
	edit          func(m *image)
}

var damages = []damage{
	// The beginning of the file.
	{"empty", "A file of no bytes.", pmem.ErrNotPool, false, 12, 60, func(m *image) { m.b = nil }},
	{"foreign", "Random bytes.", pmem.ErrNotPool, false, 12, 60, func(m *image) {
		m.b = m.b[:8192]
		rand.NewChaCha8([32]byte{}).Read(m.b)
	}},
	{"super-first", "A bit of the first superblock is flipped.", pmem.ErrDamaged, true, 0, 0, func(m *image) { m.super(0)[70] ^= 1 }},
	{"super-second", "A bit of the second superblock is flipped.", pmem.ErrDamaged, true, 0, 0, func(m *image) { m.super(1)[70] ^= 1 }},
	{"super-both", "A bit of each superblock is flipped.", pmem.ErrDamaged, false, 12, 60, func(m *image) { both(func(c int) { m.super(c)[70] ^= 1 }) }},
	{"super-zeroed", "The first superblock's frame holds zeros.", pmem.ErrNotPool, true, 0, 0, func(m *image) { clear(m.b[:2048]) }},
	{"super-version", "Written by a program of the future: format version 99.", pmem.ErrVersion, false, 12, 60, func(m *image) {
		both(func(c int) { le.PutUint32(m.super(c)[8:], 99); m.sealSuper(c) })
	}},
	{"super-incomplete", "Its creation was interrupted.", pmem.ErrIncomplete, false, 12, 60, func(m *image) {
		both(func(c int) { le.PutUint32(m.super(c)[12:], 1); m.sealSuper(c) })
	}},
	{"super-geometry", "The superblock's frame count contradicts its size, with a right checksum.", pmem.ErrDamaged, false, 12, 60, func(m *image) {
		both(func(c int) { le.PutUint32(m.super(c)[28:], 100000); m.sealSuper(c) })
	}},
	{"truncated", "The last 64 KiB of the file are missing.", pmem.ErrTruncated, false, 12, 60, func(m *image) { m.b = m.b[:len(m.b)-64<<10] }},
	{"truncated-super", "Only 100 bytes are left.", pmem.ErrNotPool, false, 12, 60, func(m *image) { m.b = m.b[:100] }},

	// The log.
	{"head-first", "A bit of the first log head is flipped.", pmem.ErrDamaged, true, 0, 0, func(m *image) { m.head(0)[16] ^= 1 }},
	{"head-both", "A bit of each log head is flipped.", pmem.ErrDamaged, false, 12, 0, func(m *image) { both(func(c int) { m.head(c)[16] ^= 1 }) }},
	{"head-old", "The second log head is older, as after a crash in the middle of a change.", nil, true, 0, 0, func(m *image) {
		h := m.head(1)
		le.PutUint64(h[8:], le.Uint64(h[8:])-1)
		le.PutUint64(h[40:], 0)
		m.seal(h)
	}},
	{"head-beyond", "The log heads say that entries are durable which were never written, with a right checksum.", pmem.ErrDamaged, false, 0, 0, func(m *image) {
		both(func(c int) { le.PutUint64(m.head(c)[40:], 1000); m.seal(m.head(c)) })
	}},
	{"entry-middle", "A bit of record 6's entry is flipped.", pmem.ErrDamaged, false, 7, 0, func(m *image) { m.entry(6, 0)[36] ^= 1 }},
	{"entry-last", "The last record's last entry holds zeros.", pmem.ErrDamaged, false, 1, 0, func(m *image) { clear(m.entry(12, 1)) }},
	{"entry-frame", "Record 8 refers to a frame that does not exist, with a right checksum.", pmem.ErrDamaged, false, 5, 0, func(m *image) {
		e := m.entry(8, 2)
		le.PutUint32(e[28:], 1<<30)
		m.seal(e)
	}},
	{"entry-moved", "The entries of records 5 and 6 have changed places.", pmem.ErrDamaged, false, 8, 0, func(m *image) {
		a, b := m.entry(5, 0), m.entry(6, 0)
		for i := range a {
			a[i], b[i] = b[i], a[i]
		}
	}},
	{"log-zeroed", "The log's ring holds zeros.", pmem.ErrDamaged, false, 12, 0, func(m *image) { clear(m.b[le.Uint64(m.b[40:]):][:2048]) }},
	{"payload", "A bit of record 3's payload is flipped.", pmem.ErrChecksum, true, 1, 0, func(m *image) { m.payload(3)[5] ^= 1 }},
	{"payload-zeroed", "The frames with the payloads of records 4 and 5 hold zeros.", pmem.ErrChecksum, true, 2, 0, func(m *image) {
		clear(m.payload(4))
		clear(m.payload(5))
	}},

	// Roots.
	{"roots-first", "A bit of the first table of roots is flipped.", pmem.ErrDamaged, true, 0, 0, func(m *image) { m.root(0, rootTree)[50] ^= 1 }},
	{"roots-both", "A bit of each table of roots is flipped.", pmem.ErrDamaged, false, 0, 60, func(m *image) { both(func(c int) { m.root(c, rootTree)[50] ^= 1 }) }},
	{"roots-count", "The tables have 63 roots, one more than there can be.", pmem.ErrDamaged, false, 0, 60, func(m *image) {
		both(func(c int) { le.PutUint32(m.roots(c)[16:], 63) })
	}},
	{"roots-order", "Two roots have the same name, with a right checksum.", pmem.ErrDamaged, false, 0, 60, func(m *image) {
		both(func(c int) { copy(m.root(c, rootTree), m.root(c, rootFrame)[:32]); m.sealRoots(c) })
	}},
	{"root-kind", "A root is of a kind that nobody knows.", pmem.ErrKind, false, 0, 0, func(m *image) {
		both(func(c int) { le.PutUint32(m.root(c, rootValue)[32:], 0x12345678); m.sealRoots(c) })
	}},
	{"root-frame", "A root names a frame beyond the end, with a right checksum.", pmem.ErrDamaged, false, 0, 0, func(m *image) {
		both(func(c int) { le.PutUint32(m.root(c, rootFrame)[36:], 1<<30); m.sealRoots(c) })
	}},
	{"root-value", "A root that is only a value names a frame, with a right checksum.", pmem.ErrDamaged, false, 0, 0, func(m *image) {
		both(func(c int) { copy(m.root(c, rootValue)[36:40], m.root(c, rootTree)[36:40]); m.sealRoots(c) })
	}},
	{"root-shared", "A named frame is the tree's root node as well, with a right checksum.", pmem.ErrDamaged, false, 0, 0, func(m *image) {
		both(func(c int) { copy(m.root(c, rootFrame)[36:40], m.root(c, rootTree)[36:40]); m.sealRoots(c) })
	}},

	// The tree.
	{"tree-count", "The tree's root says 61 keys, with a right checksum.", pmem.ErrDamaged, false, 0, 0, func(m *image) {
		both(func(c int) { le.PutUint64(m.root(c, rootTree)[48:], 61); m.sealRoots(c) })
	}},
	{"tree-version", "The tree has format version 9, with a right checksum.", pmem.ErrVersion, false, 0, 60, func(m *image) {
		both(func(c int) { m.root(c, rootTree)[40+25] = 9; m.sealRoots(c) })
	}},
	{"tree-root", "The tree's root node holds zeros.", pmem.ErrDamaged, false, 0, 60, func(m *image) { clear(m.node(-1)) }},
	{"tree-leaf", "The magic number of a leaf is wrong.", pmem.ErrDamaged, false, 0, 30, func(m *image) { m.node(0)[0] ^= 1 }},
	{"tree-inline", "A bit of a value in a leaf is flipped.", pmem.ErrDamaged, false, 0, 30, func(m *image) { m.node(0)[2040] ^= 1 }},
	{"tree-twice", "Two cells of the root node lead to the same leaf, with a right checksum.", pmem.ErrDamaged, false, 0, 30, func(m *image) {
		n := m.node(-1)
		a, b := n[le.Uint16(n[32:]):], n[le.Uint16(n[34:]):]
		copy(b[1:5], a[1:5])
		m.sealNode(n)
	}},
	{"tree-overflow", "A bit of a frame with a value's fragments is flipped.", pmem.ErrDamaged, false, 0, 2, func(m *image) { m.overflow()[30] ^= 1 }},
	{"tree-value", "A bit of a value's content is flipped.", pmem.ErrChecksum, true, 0, 1, func(m *image) {
		f := le.Uint32(m.overflow()[24:])
		m.frame(f)[7] ^= 1
	}},
}
