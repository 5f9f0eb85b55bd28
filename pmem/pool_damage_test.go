package pmem

import (
	"bytes"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/go-quicktest/qt"
)

// damage is a change to a good pool's file, and what Open must say to it.
var damage = []struct {
	name string
	do   func(b []byte) []byte
	want error
}{
	{"no bytes", func(b []byte) []byte { return nil }, ErrNotPool},
	{"one byte", func(b []byte) []byte { return b[:1] }, ErrNotPool},
	{"zeros", func(b []byte) []byte { clear(b); return b }, ErrNotPool},
	{"random", func(b []byte) []byte { randomFill(b); return b }, ErrNotPool},
	{"newer version", func(b []byte) []byte { return ofVersion(b, formatVersion+1) }, ErrVersion},
	{"older version", func(b []byte) []byte { return ofVersion(b, oldestVersion-1) }, ErrVersion},
	{"version flipped in one copy", func(b []byte) []byte { b[9] = 1; return b }, nil},
	{"version flipped in both copies", func(b []byte) []byte { b[8]++; b[2048+8]++; return b }, ErrDamaged},
	{"version of another one in both copies", func(b []byte) []byte { b[8]--; b[2048+8]--; return b }, ErrDamaged},
	{"version 0 in one copy", func(b []byte) []byte { b[8] = 0; return b }, nil},
	{"version 0", func(b []byte) []byte { b[8] = 0; b[2048+8] = 0; return b }, ErrDamaged},
	{"half the file", func(b []byte) []byte { return b[:len(b)/2] }, ErrTruncated},
	{"one page short", func(b []byte) []byte { return b[:len(b)-4096] }, ErrTruncated},
	{"superblock only", func(b []byte) []byte { return b[:128] }, ErrTruncated},
	{"both superblocks", func(b []byte) []byte { b[70] ^= 1; b[2048+70] ^= 1; return b }, ErrDamaged},
	{"both log heads", func(b []byte) []byte { b[2*2048+16] ^= 1; b[3*2048+16] ^= 1; return b }, ErrDamaged},
	{"both roots", func(b []byte) []byte { b[4*2048+8] ^= 1; b[4*2048+8192+8] ^= 1; return b }, ErrDamaged},
	{"first roots", func(b []byte) []byte { b[4*2048+8] ^= 1; return b }, nil},
	{"second roots", func(b []byte) []byte { b[4*2048+8192+8] ^= 1; return b }, nil},
	{"all roots gone", func(b []byte) []byte { clear(b[4*2048 : 4*2048+2*8192]); return b }, ErrDamaged},
	{"log head cut off", func(b []byte) []byte { clear(b[2*2048 : 4*2048]); return b }, ErrDamaged},
	{"log entry", func(b []byte) []byte { b[4*2048+2*8192+30] ^= 1; return b }, ErrDamaged},
	{"log entry gone", func(b []byte) []byte { clear(b[4*2048+2*8192:][:64]); return b }, ErrDamaged},
	{"first superblock", func(b []byte) []byte { b[70] ^= 1; return b }, nil},
	{"first superblock gone", func(b []byte) []byte { clear(b[:2048]); return b }, nil},
	{"second superblock", func(b []byte) []byte { b[2048+70] ^= 1; return b }, nil},
	{"first log head", func(b []byte) []byte { b[2*2048+16] ^= 1; return b }, nil},
	{"second log head", func(b []byte) []byte { b[3*2048+16] ^= 1; return b }, nil},
	{"longer file", func(b []byte) []byte { return append(b, make([]byte, 4096)...) }, nil},
}

func randomFill(b []byte) {
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
}

func TestDamagedPools(t *testing.T) {
	path, p := newFile(t, Options{})
	seq, err := p.Log().AppendCopy([]byte("payload"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.IsNil(p.Log().Commit()))
	p.Close()
	good, err := os.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	for _, d := range damage {
		t.Run(d.name, func(t *testing.T) {
			qt.Assert(t, qt.IsNil(os.WriteFile(path, d.do(bytes.Clone(good)), 0o600)))
			for _, ro := range []bool{true, false} {
				p, err := Open(path, Options{ReadOnly: ro})
				if d.want != nil {
					if ro && err == nil { // it can be looked at, and says what is wrong
						qt.Assert(t, qt.ErrorIs(errors.Join(p.Problems()...), d.want))
						p.Close()
						continue
					}
					qt.Assert(t, qt.ErrorIs(err, d.want))
					qt.Assert(t, qt.StringContains(err.Error(), path))
					qt.Assert(t, qt.Not(qt.StringContains(err.Error(), "\n")))
					continue
				}
				qt.Assert(t, qt.IsNil(err))
				r, err := p.Log().Record(seq)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.IsNil(r.Verify()))
				p.Close()
			}
			if d.want == nil { // the writer repaired it
				b, err := os.ReadFile(path)
				qt.Assert(t, qt.IsNil(err))
				s, err := readSuper(b)
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(s.bad, noneBad))
				_, bad, err := readHead(b, &s.geometry, uuidSeed(s.uuid))
				qt.Assert(t, qt.IsNil(err))
				qt.Assert(t, qt.Equals(bad, noneBad))
			}
		})
	}
}

// ofVersion makes the first copy of the superblock one that a program of another
// version has written.
func ofVersion(b []byte, v uint32) []byte {
	le.PutUint32(b[8:], v)
	le.PutUint32(b[124:], crc32.Checksum(b[:124], castagnoli))
	return b
}

// An entry with a right checksum and wrong content is damage, not a wild access.
func TestEntryOutOfRange(t *testing.T) {
	for name, change := range map[string]func(p *Pool, e *entry){
		"frame beyond the end":  func(p *Pool, e *entry) { e.frame = p.Frames() },
		"frame of the log":      func(p *Pool, e *entry) { e.frame = 4 },
		"range":                 func(p *Pool, e *entry) { e.off, e.len = 2000, 100 },
		"sequence":              func(p *Pool, e *entry) { e.seq = 9 },
		"not first":             func(p *Pool, e *entry) { e.flags = flagLast },
		"unknown flag":          func(p *Pool, e *entry) { e.flags |= 0x80 },
		"epoch of the future":   func(p *Pool, e *entry) { e.epoch = 99 },
		"run of one frame":      func(p *Pool, e *entry) { e.flags |= flagRun },
		"run beyond the end":    func(p *Pool, e *entry) { e.flags |= flagRun; e.frame, e.len = p.Frames()-2, 3*2048 },
		"run without a payload": func(p *Pool, e *entry) { e.flags |= flagRun | flagHeader },
		"run too far": func(p *Pool, e *entry) {
			e.flags |= flagRun
			e.frame, e.len = (p.FirstFrame()/256+1)*256-1, 2*2048
		},
	} {
		path, p := newFile(t, Options{})
		p.Log().AppendCopy([]byte("payload"))
		p.Log().Commit()
		e, ok := p.Log().decode(0)
		qt.Assert(t, qt.IsTrue(ok))
		change(p, &e)
		e.encode(p.Log().slot(0))
		seal(p.Log().slot(0), p.Log().seed)
		p.Close()
		_, err := Open(path, Options{})
		qt.Check(t, qt.ErrorIs(err, ErrDamaged), qt.Commentf("%s", name))
	}
}
