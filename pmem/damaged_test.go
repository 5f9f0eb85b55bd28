package pmem_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

var update = flag.Bool("update", false, "write testdata/damaged anew")

const (
	damagedDir  = "testdata/damaged"
	goodPool    = "good.pool"
	goodRecords = 12
	goodKeys    = 60
)

// Every pool of the corpus is opened, checked and dumped. What comes out is in
// a file beside it, to be read by people; what must hold in any case is here.
func TestDamagedCorpus(t *testing.T) {
	if *update {
		updateCorpus(t)
	}
	good := gunzip(t, goodPool)
	want := contentOf(t, good)
	qt.Assert(t, qt.HasLen(want.records, goodRecords))
	qt.Assert(t, qt.HasLen(want.keys, goodKeys))
	files, err := filepath.Glob(filepath.Join(damagedDir, "*.gz"))
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(files, len(damages)+1))
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			b := gunzip(t, d.name+".pool")
			story, found, got := inspect(t, d.name, b)
			text := fmt.Sprintf("%s\n\n%s", d.what, story)
			file := filepath.Join(damagedDir, d.name+".txt")
			if *update {
				qt.Assert(t, qt.IsNil(os.WriteFile(file, []byte(text), 0o644)))
			}
			told, err := os.ReadFile(file)
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(text, string(told)))
			for _, err := range found {
				qt.Check(t, qt.Not(qt.StringContains(err.Error(), "\n")))
			}

			// Nothing that is served differs from what was stored, unless a checksum said so.
			for seq, r := range got.records {
				qt.Check(t, qt.Equals(r, want.records[seq]), qt.Commentf("record %d", seq))
			}
			for key, v := range got.keys {
				qt.Check(t, qt.Equals(v, want.keys[key]), qt.Commentf("key %s", key))
			}
			qt.Check(t, qt.IsTrue(len(got.records) >= goodRecords-d.records), qt.Commentf("%d records are served", len(got.records)))
			qt.Check(t, qt.IsTrue(len(got.keys) >= goodKeys-d.keys), qt.Commentf("%d keys are served", len(got.keys)))

			all := errors.Join(found...)
			if d.class == nil {
				qt.Check(t, qt.IsNil(all))
			} else {
				qt.Check(t, qt.ErrorIs(all, d.class))
			}
			p, err := openBytes(t, d.name, b, pmem.Options{})
			if !d.opens {
				qt.Check(t, qt.ErrorIs(err, d.class))
				return
			}
			// What opens for writing has been mended, but for lost payload.
			qt.Assert(t, qt.IsNil(err))
			_, err = p.Log().AppendCopy([]byte("one more"))
			qt.Check(t, qt.IsNil(err))
			qt.Check(t, qt.IsNil(p.Log().Commit()))
			qt.Check(t, qt.IsNil(p.Close()))
			_, found, _ = inspect(t, d.name, bytesOf(t, p.Path()))
			for _, err := range found {
				qt.Check(t, qt.ErrorIs(err, pmem.ErrChecksum))
			}
		})
	}
}

// inspect tells what users see of a pool, and returns what is wrong with it
// and what is right.
func inspect(t *testing.T, name string, b []byte) (story string, found []error, got content) {
	var s strings.Builder
	tell := func(format string, args ...any) { fmt.Fprintf(&s, format+"\n", args...) }
	verdict := func(err error, path string) string {
		if err == nil {
			return "ok"
		}
		return strings.ReplaceAll(err.Error(), path, name+".pool")
	}
	w, err := openBytes(t, name, b, pmem.Options{})
	tell("open for writing: %s", verdict(err, pathOf(w, err, name)))
	if err == nil {
		w.Close()
	}
	p, err := openBytes(t, name, b, pmem.Options{ReadOnly: true})
	tell("open: %s", verdict(err, pathOf(p, err, name)))
	if err != nil {
		return s.String(), []error{err}, got
	}
	defer p.Close()
	res, err := p.Check(t.Context(), nil, func(err error) {
		found = append(found, err)
		tell("check: %s", verdict(err, p.Path()))
	})
	qt.Check(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(res.Problems, len(found)))
	for _, n := range res.Notes {
		tell("note: %s", n)
	}
	tell("found: %d records, %d structures, %d of %d frames in use", res.Records, res.Structures, res.Used, res.Frames)
	err = p.Dump(io.Discard, nil)
	tell("dump: %s", verdict(err, p.Path()))
	got = serve(p, tell)
	if err == nil { // a dump is whole or an error
		qt.Check(t, qt.HasLen(got.records, goodRecords))
		qt.Check(t, qt.HasLen(got.keys, goodKeys))
	}
	return s.String(), found, got
}

func pathOf(p *pmem.Pool, err error, name string) string {
	if p != nil {
		return p.Path()
	}
	// The path in the message ends with the file's name.
	for _, w := range strings.Fields(err.Error()) {
		if w = strings.Trim(w, ":;,"); strings.HasSuffix(w, "/"+name+".pool") {
			return w
		}
	}
	return name
}

// content is what is right in a pool.
type content struct {
	records map[uint64]string // those that the good pool has
	keys    map[string]string
}

// serve reads everything as a server would.
func serve(p *pmem.Pool, tell func(string, ...any)) content {
	c := content{records: map[uint64]string{}, keys: map[string]string{}}
	for r, err := range p.Log().Records() {
		if err == nil {
			err = r.Verify()
		}
		if err != nil {
			tell("log: %v", err)
			continue
		}
		var b strings.Builder
		r.WriteTo(&b)
		if r.Seq <= goodRecords {
			c.records[r.Seq] = fmt.Sprintf("%q %q", r.Header, b.String())
		}
	}
	t, err := btree.Open(p, "tree", btree.Options{})
	if err != nil {
		tell("tree: %v", err)
		return c
	}
	first, last, same := "", "", "" // keys that are lost for the same reason
	lost := func(key, why string) {
		if why != same && same != "" {
			tell("%s to %s: %s", first, last, same)
		}
		if why != same {
			first = key
		}
		last, same = key, why
	}
	for i := range goodKeys {
		var v btree.Value
		key := fmt.Sprintf("key%02d", i)
		found, err := t.Get([]byte(key), &v)
		if err == nil && found {
			err = v.Verify(p)
		}
		switch {
		case err != nil:
			lost(key, err.Error())
		case !found:
			lost(key, "not found")
		default:
			lost(key, "")
			c.keys[key] = string(v.AppendTo(p, nil))
		}
	}
	lost("", "")
	return c
}

func contentOf(t *testing.T, b []byte) content {
	p, err := openBytes(t, "good", b, pmem.Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	return serve(p, t.Errorf)
}

// openBytes opens a file with that content.
func openBytes(t *testing.T, name string, b []byte, o pmem.Options) (*pmem.Pool, error) {
	dir, err := os.MkdirTemp("/dev/shm", "pmem-damaged-")
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, name+".pool")
	qt.Assert(t, qt.IsNil(os.WriteFile(path, b, 0o600)))
	p, err := pmem.Open(path, o)
	if p != nil {
		t.Cleanup(func() { p.Close() })
	}
	return p, err
}

func bytesOf(t *testing.T, path string) []byte {
	b, err := os.ReadFile(path)
	qt.Assert(t, qt.IsNil(err))
	return b
}

func gunzip(t *testing.T, name string) []byte {
	f, err := os.Open(filepath.Join(damagedDir, name+".gz"))
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	z, err := gzip.NewReader(f)
	qt.Assert(t, qt.IsNil(err))
	b, err := io.ReadAll(z)
	qt.Assert(t, qt.IsNil(err))
	return b
}

func writeGzip(t *testing.T, name string, b []byte) {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	qt.Assert(t, qt.IsNil(err))
	z.Write(b)
	qt.Assert(t, qt.IsNil(z.Close()))
	qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(damagedDir, name+".gz"), out.Bytes(), 0o644)))
}

// updateCorpus makes every damaged pool from the good one, and that if it is
// not there.
func updateCorpus(t *testing.T) {
	if _, err := os.Stat(filepath.Join(damagedDir, goodPool+".gz")); errors.Is(err, os.ErrNotExist) {
		writeGzip(t, goodPool, makeGood(t))
	}
	old, err := filepath.Glob(filepath.Join(damagedDir, "*"))
	qt.Assert(t, qt.IsNil(err))
	for _, path := range old {
		if name := filepath.Base(path); name != goodPool+".gz" && name != "README.md" {
			qt.Assert(t, qt.IsNil(os.Remove(path)))
		}
	}
	good := gunzip(t, goodPool)
	for _, d := range damages {
		m := newImage(t, slices.Clone(good))
		d.edit(m)
		writeGzip(t, d.name+".pool", m.b)
	}
}

// makeGood makes a small pool with records of every shape, the roots that pmem
// knows itself, and a tree.
func makeGood(t *testing.T) []byte {
	mem := make([]byte, 400<<10)
	p, err := pmem.FormatMemory(mem, nil, pmem.Options{LogEntries: 32})
	qt.Assert(t, qt.IsNil(err))
	for i := range goodRecords {
		header := strings.Repeat("h", i%4*16)
		_, err := p.Log().AppendCopyHeader([]byte(header), []byte(strings.Repeat(fmt.Sprintf("record %d ", i+1), i%5*60)))
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.IsNil(p.Log().Commit()))
	}
	var f [1]uint32
	p.Alloc(f[:])
	copy(p.Frame(f[0]), "a named frame")
	qt.Assert(t, qt.IsNil(p.Persist(p.Offset(f[0], 0), 2048)))
	qt.Assert(t, qt.IsNil(p.SetRoot("frame", pmem.Root{Kind: pmem.KindFrame, Frame: f[0]})))
	qt.Assert(t, qt.IsNil(p.SetRoot("value", pmem.Root{Value: [pmem.RootValue]byte{1, 2, 3}})))
	tr, err := btree.Create(p, "tree", btree.Options{Reserve: 8})
	qt.Assert(t, qt.IsNil(err))
	for i := range goodKeys {
		v := btree.Value{Inline: bytes.Repeat([]byte{byte('a' + i%26)}, 64)}
		if n := []int{0, 1, 12}[i%20/18*(1+i/20%2)]; n > 0 { // some have fragments, some of these many
			p.Alloc(f[:])
			copy(p.Frame(f[0]), strings.Repeat(fmt.Sprintf("value %d ", i), 40))
			v = btree.Value{Len: uint32(n * 20)}
			for k := range n {
				v.Frags = append(v.Frags, pmem.Fragment{Frame: f[0], Off: uint16(20 * k), Len: 20})
			}
			v.Sum = btree.SumOf(p, v.Frags)
		}
		_, err := tr.Put(fmt.Appendf(nil, "key%02d", i), &v)
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Assert(t, qt.IsNil(tr.Commit()))
	tr.Close()
	qt.Assert(t, qt.IsNil(p.Close()))
	return mem
}
