package pmem

import (
	"bytes"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/go-quicktest/qt"
)

// ofFormat makes an empty pool of a format version.
func ofFormat(t testing.TB, version uint32, size int) *Pool {
	t.Helper()
	mem := make([]byte, size)
	g, err := layout(uint64(size), 2048, 512)
	qt.Assert(t, qt.IsNil(err))
	s := superblock{version: version, geometry: g, uuid: UUID{1}, created: now()}
	qt.Assert(t, qt.IsNil(format(mem, &noDomain{mem}, s)))
	p, err := OpenMemory(mem, nil, Options{NoFlush: true})
	qt.Assert(t, qt.IsNil(err))
	return p
}

// appends are the ways in which a payload gets into the log.
var appends = map[string]func(p *Pool, payload []byte) (uint64, error){
	"copied": func(p *Pool, payload []byte) (uint64, error) {
		return p.Log().AppendCopyHeader(make([]byte, 20), payload)
	},
	"summed":  func(p *Pool, payload []byte) (uint64, error) { return appendPieces(p, payload, 5000) },
	"inPlace": func(p *Pool, payload []byte) (uint64, error) { return appendInFrames(p, payload) },
}

// appendInFrames puts a payload into frames as a NIC would, and appends it from there.
func appendInFrames(p *Pool, payload []byte) (uint64, error) {
	frames := make([]uint32, (len(payload)+p.FrameSize()-1)/p.FrameSize())
	frames = frames[:p.Alloc(frames)]
	defer p.UnrefAll(frames)
	var frags []Fragment
	for _, f := range frames {
		n := copy(p.Frame(f), payload)
		frags, payload = append(frags, Fragment{Frame: f, Len: uint16(n)}), payload[n:]
	}
	if len(payload) > 0 {
		return 0, p.Log().noFrames(len(frames), len(frames))
	}
	return p.Log().Append(frags, true)
}

// A payload in neighbouring frames is one entry with one checksum, however it gets
// there and however often the log has been round the pool; it is read as ever,
// and what is free in the end is what was free before.
func TestRuns(t *testing.T) {
	for name, add := range appends {
		for _, version := range []uint32{oldestVersion, runsSince - 1, formatVersion} {
			p := ofFormat(t, version, 1<<20)
			free := p.Free()
			rng := rand.New(rand.NewPCG(1, 2))
			for round := range 40 {
				payload := randomPayload(rng, 1+rng.IntN(120<<10))
				seq, err := add(p, payload)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(p.Log().Commit()))
				n := (len(payload) + 2047) / 2048
				most := uint64(3) // what was there before, and the border of runReach
				if version < runsSince {
					most = uint64(n)
				}
				qt.Check(t, qt.IsTrue(p.Log().Used() <= most), qt.Commentf("%s, version %d, round %d: %d entries for %d frames", name, version, round, p.Log().Used(), n))
				p, err = OpenMemory(p.Mem(), nil, Options{NoFlush: true})
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.Equals(p.Free(), free-n))
				r, err := p.Log().Record(seq)
				qt.Assert(t, qt.IsNil(err))
				qt.Check(t, qt.HasLen(r.Fragments, n))
				qt.Check(t, qt.IsNil(r.Verify()))
				qt.Check(t, qt.IsTrue(bytes.Equal(payloadOf(t, r), payload)))
				qt.Assert(t, qt.IsNil(p.Log().Truncate(seq)))
				qt.Assert(t, qt.Equals(p.Free(), free))
			}
		}
	}
}

// A log that goes round its pool gets its frames in the order in which they lie, also
// when it is truncated by many records at once.
func TestRunsAfterTruncation(t *testing.T) {
	p := ofFormat(t, formatVersion, 1<<20)
	payload := make([]byte, 16<<10) // 8 frames
	records, entries := 0, uint64(0)
	for range 20 {
		for p.Free() > 8 {
			used := p.Log().Used()
			_, err := p.Log().AppendCopy(payload)
			qt.Assert(t, qt.IsNil(err))
			entries += p.Log().Used() - used
			records++
		}
		qt.Assert(t, qt.IsNil(p.Log().Commit()))
		half := p.Log().Head() + uint64(p.Log().Len())/2
		qt.Assert(t, qt.IsNil(p.Log().Truncate(half)))
	}
	qt.Check(t, qt.IsTrue(entries <= uint64(records)*3/2), qt.Commentf("%d entries for %d records", entries, records))
}

// What rots anywhere in a run is told, and to whom reads from the middle on as well.
func TestRottenRun(t *testing.T) {
	p := ofFormat(t, formatVersion, 1<<20)
	seq, err := appendInFrames(p, make([]byte, 10*2048-7))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Log().Commit()))
	r, err := p.Log().Record(seq)
	qt.Assert(t, qt.IsNil(err))
	sum, at, of := r.Sum(4)
	first, _, _ := r.Sum(0)
	qt.Check(t, qt.Equals(sum, first))
	qt.Check(t, qt.Equals(at, 4))
	qt.Check(t, qt.Equals(of, 10))
	next, err := r.VerifyFrom(4)
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(next, 10))
	for i := range r.Fragments {
		r.Payload(i)[i] ^= 1
		_, err := r.VerifyFrom(4)
		qt.Check(t, qt.ErrorIs(err, ErrChecksum))
		qt.Check(t, qt.ErrorIs(r.Verify(), ErrChecksum))
		r.Payload(i)[i] ^= 1
	}
	qt.Check(t, qt.IsNil(r.Verify()))
}

// In a pool of a format without runs an entry that says it is one is damage.
func TestRunInOldPool(t *testing.T) {
	p := ofFormat(t, runsSince-1, 1<<20)
	_, err := appendInFrames(p, make([]byte, 2048))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Log().Commit()))
	e, ok := p.Log().decode(0)
	qt.Assert(t, qt.IsTrue(ok))
	e.flags |= flagRun
	e.len = 2 * 2048
	e.encode(p.Log().slot(0))
	seal(p.Log().slot(0), p.Log().seed)
	p, err = OpenMemory(p.Mem(), nil, Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.ErrorIs(p.Log().Recovery().Damage, ErrDamaged))
}

// appendInPlace stores a payload in several frames as a NIC would, two
// fragments to a frame at times.
func (m *crashModel) appendInPlace(p *Pool, rng *rand.Rand, seq uint64) error {
	n, least := 1+rng.IntN(3), 1
	if rng.IntN(8) == 0 { // above placeLater
		n, least = 9, 1000
	}
	frames := make([]uint32, n)
	frames = frames[:p.Alloc(frames)]
	defer func() { p.UnrefAll(frames) }()
	var frags []Fragment
	var payload []byte
	whole := rng.IntN(3) == 0 // runs of frames, where these are neighbours
	for _, f := range frames {
		if whole {
			copy(p.Frame(f), randomPayload(rng, 2048))
			frags = append(frags, Fragment{Frame: f, Len: 2048})
			payload = append(payload, p.Frame(f)...)
			continue
		}
		for off := 0; off < 2048; off += 1024 {
			part := randomPayload(rng, least+rng.IntN(1001-least))
			copy(p.Frame(f)[off+7:], part)
			frags = append(frags, Fragment{Frame: f, Off: uint16(off + 7), Len: uint16(len(part))})
			payload = append(payload, part...)
		}
	}
	m.records[seq] = payload
	if rng.IntN(2) == 0 {
		sums := make([]uint32, len(frags))
		for i, f := range frags {
			if i > 0 && p.Continues(frags[i-1], f) {
				sums[i] = sums[i-1]
			}
			sums[i] = crc32.Update(sums[i], castagnoli, p.Frame(f.Frame)[f.Off:f.Off+f.Len])
		}
		_, err := p.Log().AppendSummed(frags, sums, true)
		return err
	}
	_, err := p.Log().Append(frags, true)
	return err
}
