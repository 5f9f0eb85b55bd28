package pmem

import (
	"bytes"
	"context"
	"hash/crc32"
	"io"
	"os"
	"testing"
)

// FuzzOpen opens arbitrary bytes as a pool. Nothing may panic, and what opens
// can be read to its end.
func FuzzOpen(f *testing.F) {
	path, p := newFile(f, Options{Size: 200 << 10, LogEntries: 32})
	p.Log().AppendCopy([]byte("first"))
	p.Log().AppendCopy(make([]byte, 3000))
	p.Log().Commit()
	p.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{})
	f.Add(good[:128])
	f.Add(good[:4096+128])
	for _, off := range []int{8, 12, 16, 24, 40, 48, 70, 124, 4096, 4096 + 16, 6144 + 16, 8192, 8192 + 24, 8192 + 64 + 40} {
		bad := append([]byte(nil), good...)
		bad[off] ^= 0x55
		f.Add(bad)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, ro := range []bool{true, false} {
			if p, err := Open(path, Options{ReadOnly: ro}); err == nil {
				readAll(p)
				p.Close()
			}
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
	s := superblock{geometry: g, uuid: UUID{7}, created: now()}
	f.Fuzz(func(t *testing.T, script []byte, readOnly bool) {
		mem := make([]byte, g.size)
		format(mem, &noDomain{mem}, s)
		p, err := newPool(mem, s, Options{}, nil)
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
		q, err := newPool(mem, s, Options{ReadOnly: readOnly}, &noDomain{mem})
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
	s := superblock{geometry: g, uuid: UUID{7}, created: now()}
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
