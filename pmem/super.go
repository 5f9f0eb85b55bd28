package pmem

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// Constants of the format; see the package documentation.
const (
	formatVersion = 4 // of new pools
	oldestVersion = 2 // that can be opened, for writing too; it stays what it is

	superLen   = 128
	superMagic = "PASTEPM\x00"

	stateCreating = 1
	stateComplete = 2

	// The frames before the roots: two superblocks, two log heads.
	headFrame0  = 2
	headFrame1  = 3
	leadFrames  = 4
	entryLen    = CacheLine
	minData     = 64      // fewer data frames than this fill no ring
	maxFrames   = 1 << 31 // of any kind
	maxLog      = 1 << 31 // entries
	sizeQuantum = 4096    // a pool's size is a multiple of this

	// DefaultFrameSize is the frame size in bytes when Options gives none.
	DefaultFrameSize = 2048
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// UUID names a pool for its lifetime.
type UUID [16]byte

func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

// geometry says where everything lies. It is a pure function of size, frame
// size and log length, so of a file only these three are believed.
type geometry struct {
	size      uint64
	frameSize uint32
	frames    uint32
	first     uint32
	logOff    uint64
	logLen    uint64
	runs      bool // an entry of the log may be a run of frames; newPool sets it
}

// layout computes the geometry of a pool of size bytes, a multiple of
// sizeQuantum, with at least logEntries log entries (0: two per frame).
func layout(size uint64, frameSize int, logEntries uint64) (geometry, error) {
	if frameSize != 2048 && frameSize != 4096 {
		return geometry{}, fmt.Errorf("%w: frame size %d; it must be 2048 or 4096 bytes", ErrSize, frameSize)
	}
	if size%sizeQuantum != 0 {
		return geometry{}, fmt.Errorf("%w: %d bytes are no multiple of %d", ErrSize, size, sizeQuantum)
	}
	fs := uint64(frameSize)
	frames := size / fs
	if frames > maxFrames {
		return geometry{}, fmt.Errorf("%w: %d bytes are more than %d frames of %d bytes", ErrSize, size, maxFrames, fs)
	}
	if logEntries == 0 {
		logEntries = 2 * frames
	}
	if logEntries > maxLog {
		return geometry{}, fmt.Errorf("%w: %d log entries; the limit is %d", ErrSize, logEntries, uint64(maxLog))
	}
	perFrame := fs / entryLen
	logFrames := (logEntries + perFrame - 1) / perFrame
	logStart := leadFrames + 2*rootsLen/fs
	first := logStart + logFrames
	// Data begins on a page, so that pages hold data frames only.
	if perPage := sizeQuantum / fs; first%perPage != 0 {
		first += perPage - first%perPage
	}
	if first+minData > frames {
		return geometry{}, fmt.Errorf("%w: %d bytes hold %d frames of %d bytes, and %d log entries need %d with at least %d data frames",
			ErrSize, size, frames, fs, logEntries, first+minData, minData)
	}
	return geometry{
		size:      size,
		frameSize: uint32(frameSize),
		frames:    uint32(frames),
		first:     uint32(first),
		logOff:    logStart * fs,
		logLen:    logFrames * perFrame,
	}, nil
}

// superblock is the decoded form.
type superblock struct {
	geometry
	version uint32
	state   uint32
	created time.Time
	uuid    UUID
	bad     badCopy // in memory only: a copy on the medium is
}

func (s *superblock) encode(b []byte) {
	clear(b[:superLen])
	copy(b, superMagic)
	le.PutUint32(b[8:], s.version)
	le.PutUint32(b[12:], s.state)
	le.PutUint64(b[16:], s.size)
	le.PutUint32(b[24:], s.frameSize)
	le.PutUint32(b[28:], s.frames)
	le.PutUint32(b[32:], s.first)
	le.PutUint64(b[40:], s.logOff)
	le.PutUint64(b[48:], s.logLen)
	le.PutUint64(b[56:], uint64(s.created.UnixNano()))
	copy(b[64:80], s.uuid[:])
	le.PutUint32(b[124:], crc32.Checksum(b[:124], castagnoli))
}

// decodeSuper reads one copy. The version is looked at before the checksum,
// because a later version may have its checksum elsewhere.
func decodeSuper(b []byte) (superblock, error) {
	if len(b) < superLen || string(b[:8]) != superMagic {
		return superblock{}, ErrNotPool
	}
	version := le.Uint32(b[8:])
	if version != 0 && (version < oldestVersion || version > formatVersion) {
		// No program ever wrote 0: that is damage, or a torn store. So is a version
		// with which the checksum is wrong, and with one of ours right.
		mended := bytes.Clone(b[:124])
		for v := uint32(oldestVersion); v <= formatVersion; v++ {
			le.PutUint32(mended[8:], v)
			if crc32.Checksum(mended, castagnoli) == le.Uint32(b[124:]) {
				return superblock{}, fmt.Errorf("%w: the superblock's version is wrong", ErrDamaged)
			}
		}
		return superblock{}, fmt.Errorf("%w: the pool has version %d, this program knows versions %d to %d; use the program that wrote it", ErrVersion, version, oldestVersion, formatVersion)
	}
	if crc32.Checksum(b[:124], castagnoli) != le.Uint32(b[124:]) {
		return superblock{}, fmt.Errorf("%w: the superblock's checksum is wrong", ErrDamaged)
	}
	s := superblock{version: version, state: le.Uint32(b[12:]), created: time.Unix(0, int64(le.Uint64(b[56:])))}
	copy(s.uuid[:], b[64:80])
	// 0 log entries would mean "the default" to layout.
	g, err := layout(le.Uint64(b[16:]), int(le.Uint32(b[24:])), max(le.Uint64(b[48:]), 1))
	if err != nil || g.frames != le.Uint32(b[28:]) || g.first != le.Uint32(b[32:]) ||
		g.logOff != le.Uint64(b[40:]) || g.logLen != le.Uint64(b[48:]) {
		return superblock{}, fmt.Errorf("%w: the superblock's geometry contradicts itself", ErrDamaged)
	}
	s.geometry = g
	switch s.state {
	case stateComplete:
		return s, nil
	case stateCreating:
		return s, ErrIncomplete
	}
	return superblock{}, fmt.Errorf("%w: the superblock has state %d", ErrDamaged, s.state)
}

// badCopy says which of two copies is not to be used, and has to be written
// anew before the other one is changed.
type badCopy int

const (
	noneBad badCopy = iota
	firstBad
	secondBad
)

func (b badCopy) index() int { return int(b) - 1 }

// superReach is how many bytes from the start hold every place where a copy
// of the superblock can be.
const superReach = 4096 + superLen

// readSuper finds a usable superblock in the first bytes of a file. When the
// first copy is bad it looks where the second would be for either frame size.
func readSuper(b []byte) (s superblock, err error) {
	s, err = decodeSuper(b)
	if err == nil {
		second, err2 := decodeSuper(b[min(len(b), int(s.frameSize)):])
		if err2 != nil || second != s {
			s.bad = secondBad
		}
		return s, nil
	}
	// A program that changes the format or creates a pool anew rewrites the
	// first copy first: the second must not bring the old pool back.
	if errors.Is(err, ErrVersion) || errors.Is(err, ErrIncomplete) {
		return s, err
	}
	for _, off := range []int{2048, 4096} {
		if off >= len(b) {
			break
		}
		s2, err2 := decodeSuper(b[off:])
		switch {
		case err2 == nil && s2.frameSize == uint32(off):
			s2.bad = firstBad
			return s2, nil
		case err2 == ErrIncomplete, err == ErrNotPool && err2 != nil:
			err = err2
		}
	}
	return s, err
}

// writeSuper stores both copies and makes them durable, the first one first.
func writeSuper(mem []byte, dom Domain, s *superblock) error {
	for i := range 2 {
		if err := writeSuperCopy(mem, dom, s, i); err != nil {
			return err
		}
	}
	return nil
}

func writeSuperCopy(mem []byte, dom Domain, s *superblock, i int) error {
	off := uint64(i) * uint64(s.frameSize)
	s.encode(mem[off:])
	dom.Flush(off, superLen)
	return dom.Fence()
}

// format lays an empty pool over mem, whatever mem held.
//
// While it runs, the superblock says "being created"; the state turns to
// "complete" only when everything else is durable. A crash in between leaves
// a file that Open names as incomplete, or one that it does not take for a
// pool at all.
func format(mem []byte, dom Domain, s superblock) error {
	return guard("the new pool", mem, dom, func() error { return formatIn(mem, dom, s) })
}

func formatIn(mem []byte, dom Domain, s superblock) error {
	s.state = stateCreating
	if err := writeSuper(mem, dom, &s); err != nil {
		return err
	}
	if err := initLogHead(mem, dom, &s); err != nil {
		return err
	}
	if err := writeRoots(mem, dom, &s.geometry, uuidSeed(s.uuid), 1, nil); err != nil {
		return err
	}
	s.state = stateComplete
	return writeSuper(mem, dom, &s)
}
