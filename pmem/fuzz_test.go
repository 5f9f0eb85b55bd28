package pmem

import (
	"bytes"
	"context"
	"hash/crc32"
	"io"
	"testing"
)

// fuzzImage is the smallest pool, with something of everything in it, and the
// number of its bytes up to the last one that is in use.
func fuzzImage(f *testing.F) (image []byte, used int) {
	f.Helper()
	image = make([]byte, 160<<10)
	p, err := FormatMemory(image, &noDomain{image}, Options{LogEntries: 32})
	if err != nil {
		f.Fatal(err)
	}
	var fr [3]uint32
	p.Alloc(fr[:])
	le.PutUint32(p.Frame(fr[0]), fr[1])
	p.Log().AppendCopyHeader([]byte("header"), []byte("first"))
	p.Log().AppendCopy(make([]byte, 3000)) // a run
	p.Log().Append([]Fragment{{Frame: fr[2], Off: 3, Len: 5}}, true)
	p.Log().Append(nil, true)
	for _, err := range []error{
		p.Log().Commit(),
		p.SetRoot("chain", Root{Kind: kindChain, Frame: fr[0]}),
		p.SetRoot("frame", Root{Kind: KindFrame, Frame: fr[2]}),
		p.SetRoot("value", Root{Value: [RootValue]byte{1}}),
		p.Close(),
	} {
		if err != nil {
			f.Fatal(err)
		}
	}
	return image, int(p.g.first+6) * int(p.g.frameSize)
}

// FuzzOpen overwrites a pool anywhere, perhaps with the superblocks' checksums
// made right again, cuts it off, and opens the rest. Nothing may panic, and
// what opens can be read to its end. It does without a file, which would take
// most of the time.
func FuzzOpen(f *testing.F) {
	good, used := fuzzImage(f)
	mem := make([]byte, len(good))
	f.Add(uint32(0), []byte{}, uint32(0), false)
	f.Add(uint32(0), good[:128], uint32(128), false)
	f.Add(uint32(0), make([]byte, 2048), uint32(0), false)
	f.Add(uint32(0), []byte("something else"), uint32(100), false)
	for _, off := range []int{8, 12, 16, 24, 40, 48, 70, 124, 2048, 2048 + 16, 4096 + 16, 6144 + 16, 8192, 8192 + 24, 8192 + 64 + 40, 24576 + 16, 28672} {
		f.Add(uint32(off), []byte{good[off] ^ 0x55}, uint32(0), false)
		f.Add(uint32(off), []byte{good[off] ^ 0x55}, uint32(len(good)-1), true)
	}
	f.Fuzz(func(t *testing.T, at uint32, b []byte, cut uint32, reseal bool) {
		for _, ro := range []bool{true, false} {
			copy(mem, good)
			copy(mem[int(at)%used:], b)
			for off := 0; reseal && off < 4096; off += 2048 {
				le.PutUint32(mem[off+124:], crc32.Checksum(mem[off:off+124], castagnoli))
			}
			rest := mem
			if cut > 0 {
				rest = mem[:int(cut)%len(mem)]
			}
			p, err := OpenMemory(rest, &noDomain{rest}, Options{ReadOnly: ro})
			if err != nil {
				continue
			}
			readAll(p)
			if ro {
				// A problem is found by Check, and nothing is dumped as if it were whole.
				res, err := p.Check(t.Context(), nil, func(error) {})
				if len(p.Problems()) > 0 && (err != nil || res.Problems == 0 || p.Dump(io.Discard, nil) == nil) {
					t.Fatalf("nobody heard of %v", p.Problems())
				}
			}
			p.Close()
		}
	})
}

// FuzzRecover changes the log of a pool, with every checksum made right again,
// so that recovery cannot rely on them.
func FuzzRecover(f *testing.F) {
	g, err := layout(200<<10, 2048, 32)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, true)
	f.Add([]byte{0, 8, 1, 2, 24, 0xff, 3, 36, 1}, true)
	f.Add([]byte{0, 0, 7, 1, 0, 1, 0, 16, 9}, false)
	s := superblock{version: formatVersion, geometry: g, uuid: UUID{7}, created: now()}
	f.Fuzz(func(t *testing.T, script []byte, readOnly bool) {
		mem := make([]byte, g.size)
		format(mem, &noDomain{mem}, s)
		p, err := newPool(mem, s, Options{}, nil, poolFile{})
		if err != nil {
			t.Fatal(err)
		}
		for range 8 {
			p.Log().AppendCopy(make([]byte, 3000))
		}
		p.Log().Commit()
		// Each triple is: which entry (or, from 32 on, log head), which byte, what.
		for ; len(script) >= 3; script = script[3:] {
			at := p.Log().slot(uint64(script[0] % 32))
			if script[0] >= 32 {
				at = mem[headOffset(&g, int(script[0]%2)):][:headLen]
			}
			at[script[1]%60] = script[2]
			seal(at, p.Log().seed)
		}
		q, err := newPool(mem, s, Options{ReadOnly: readOnly}, &noDomain{mem}, poolFile{})
		if err != nil {
			return
		}
		readAll(q)
		if !readOnly {
			q.Log().AppendCopy([]byte("more"))
			q.Log().Commit()
			q.Log().Truncate(q.Log().Next() - 1)
			if q.Misuses() != 0 {
				t.Fatalf("%d misuses of frames", q.Misuses())
			}
		}
	})
}

// FuzzRoots changes the table of roots of a pool, with its checksum made right
// again: kinds, frames and names are whatever they are.
func FuzzRoots(f *testing.F) {
	g, err := layout(200<<10, 2048, 32)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{}, []byte{}, true)
	f.Add([]byte("abc"), []byte{0, 100, 1, 4, 32, 1}, false)
	f.Add([]byte("\x01\x00\x00\x00\x40"), []byte{1, 36, 0xff, 2, 0, 'z'}, false)
	s := superblock{version: formatVersion, geometry: g, uuid: UUID{7}, created: now()}
	seed := uuidSeed(s.uuid)
	f.Fuzz(func(t *testing.T, frame, script []byte, readOnly bool) {
		mem := make([]byte, g.size)
		if err := format(mem, &noDomain{mem}, s); err != nil {
			t.Fatal(err)
		}
		for i := g.first; i < g.frames; i++ {
			copy(mem[i*g.frameSize:], frame)
		}
		list := []namedRoot{{"a", Root{Kind: KindFrame, Frame: g.first}}, {"b", Root{Kind: kindChain, Frame: g.first + 1}}, {"c", Root{}}}
		b := mem[rootsOffset(&g, 0):][:rootsLen]
		encodeRoots(b, seed, 9, list)
		// Each triple is: which 128 bytes of the table, which byte of them, what.
		for ; len(script) >= 3; script = script[3:] {
			b[int(script[0]%64)*rootLen+int(script[1]%rootLen)] = script[2]
		}
		if count := le.Uint32(b[16:]); count <= MaxRoots {
			sum := crc32.Update(seed, castagnoli, b[:60])
			le.PutUint32(b[60:], crc32.Update(sum, castagnoli, b[rootsHeadLen:rootsHeadLen+count*rootLen]))
		}
		p, err := OpenMemory(mem, nil, Options{ReadOnly: readOnly})
		if err != nil {
			return
		}
		p.Check(t.Context(), nil, func(error) {})
		p.Dump(io.Discard, nil)
		for name, r := range p.Roots() {
			if readOnly {
				continue
			}
			if err := p.SetRoot(name, r); err != nil {
				t.Fatal(err)
			}
			if err := p.DeleteRoot(name); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzRestore makes a pool from arbitrary bytes, whose checksums are made
// right again.
func FuzzRestore(f *testing.F) {
	p, err := NewMemory("fuzz", Options{Size: testSize})
	if err != nil {
		f.Fatal(err)
	}
	defer p.Close()
	p.Log().AppendCopyHeader([]byte("header"), make([]byte, 3000))
	p.Log().AppendCopy(nil)
	p.Log().Commit()
	p.SetRoot("value", Root{})
	var archive bytes.Buffer
	if err := p.Dump(&archive, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(archive.Bytes())
	f.Add(archive.Bytes()[:50])
	f.Fuzz(func(t *testing.T, b []byte) {
		b = bytes.Clone(b)
		var sum uint32
		for at := len(archiveMagic); at+8 <= len(b); {
			n := int(le.Uint32(b[at:]))
			if n > chunkMax || at+8+n > len(b) {
				break
			}
			sum = crc32.Update(sum, castagnoli, b[at+8:at+8+n])
			le.PutUint32(b[at+4:], sum)
			if n == 0 {
				sum = 0
			}
			at += 8 + n
		}
		mem := make([]byte, 256<<10)
		p, err := FormatMemory(mem, &noDomain{mem}, Options{LogEntries: 64})
		if err != nil {
			t.Fatal(err)
		}
		if p.restore(bytes.NewReader(b)) == nil {
			if err := p.Dump(io.Discard, nil); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func readAll(p *Pool) {
	p.Check(context.Background(), nil, func(error) {})
	p.Dump(io.Discard, nil)
	for r, err := range p.Log().Records() {
		if err != nil {
			return
		}
		r.Verify()
		r.WriteTo(io.Discard)
		p.Log().Record(r.Seq)
	}
}

// seal makes the checksum of a log entry or log head right.
func seal(b []byte, seed uint32) {
	le.PutUint32(b[60:], crc32.Update(seed, castagnoli, b[:60]))
}
