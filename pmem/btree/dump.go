package btree

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/pastenet/paste/pmem"
)

const dumpMagic = "PASTEBT1"

// Dump writes all keys and values to w, verified, in a form that knows nothing
// of frames:
//
//	magic "PASTEBT1", tag u64, count u64
//	per key: key length u8, flags u8 (1: inline), length in front u8, reserved u8,
//	         length u32, CRC-32C u32, key, value with what lies in front of it
//
// The sum of an inline value is computed for the dump.
func Dump(p *pmem.Pool, name string, r pmem.Root, w io.Writer) error {
	d, err := decodeRoot(r)
	if err != nil {
		return fmt.Errorf("dump tree %q: %w", name, err)
	}
	out := bufio.NewWriterSize(w, 1<<16)
	b := append([]byte(nil), dumpMagic...)
	b = le.AppendUint64(b, d.tag)
	b = le.AppendUint64(b, d.count)
	out.Write(b) // a bufio.Writer keeps its error for Flush
	v := visitor{view: newView(p, name, d), found: func(err error) error { return err }}
	v.each = func(key []byte, val *Value) error {
		if err := val.Verify(p); err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
		sum, length, flags := val.Sum, val.Len, byte(0)
		if len(val.Frags) == 0 {
			sum, length, flags = crc32.Checksum(val.Inline, castagnoli), uint32(len(val.Inline)), 1
		}
		h := append(b[:0], byte(len(key)), flags, val.Pre, 0)
		h = le.AppendUint32(h, length)
		h = le.AppendUint32(h, sum)
		out.Write(append(h, key...))
		out.Write(val.Inline)
		for _, f := range val.Frags {
			if _, err := out.Write(p.Frame(f.Frame)[f.Off : int(f.Off)+int(f.Len)]); err != nil {
				return err
			}
		}
		return nil
	}
	if err := v.run(); err != nil {
		return fmt.Errorf("dump tree %q: %w", name, err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("dump tree %q: %w", name, err)
	}
	return nil
}

// restoreBatch is how many keys Restore commits at once.
const restoreBatch = 4096

// Restore makes a new tree of that name from what Dump wrote. It reads no more
// than that. A restore that failed leaves a tree with the keys so far.
func Restore(p *pmem.Pool, name string, r io.Reader) error {
	if err := p.Guard(func() error { return restore(p, name, r) }); err != nil {
		return fmt.Errorf("restore tree %q: %w", name, err)
	}
	return nil
}

func restore(p *pmem.Pool, name string, r io.Reader) error {
	var head [24]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if string(head[:8]) != dumpMagic {
		return fmt.Errorf("%w: not the dump of a tree", pmem.ErrDamaged)
	}
	t, err := Create(p, name, Options{})
	if err != nil {
		return err
	}
	defer t.Close()
	t.SetTag(le.Uint64(head[8:]))
	for i := range le.Uint64(head[16:]) {
		if err := restoreKey(t, r); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("key number %d: %w", i, err)
		}
		if i%restoreBatch == restoreBatch-1 {
			if err := t.Commit(); err != nil {
				return err
			}
		}
	}
	return t.Commit()
}

func restoreKey(t *Tree, r io.Reader) error {
	var h [12 + MaxKey + MaxInline]byte
	if _, err := io.ReadFull(r, h[:12]); err != nil {
		return err
	}
	key := h[12 : 12+int(h[0])]
	if _, err := io.ReadFull(r, key); err != nil {
		return err
	}
	v := Value{Len: le.Uint32(h[4:]), Sum: le.Uint32(h[8:]), Pre: h[2]}
	if h[1]&1 != 0 {
		if v.Len > MaxInline {
			return fmt.Errorf("%w: %d bytes inline", pmem.ErrDamaged, v.Len)
		}
		sum := v.Sum
		v = Value{Inline: h[12+len(key) : 12+len(key)+int(v.Len)]}
		if _, err := io.ReadFull(r, v.Inline); err != nil {
			return err
		}
		if crc32.Checksum(v.Inline, castagnoli) != sum {
			return fmt.Errorf("%w of the dump", pmem.ErrChecksum)
		}
		_, err := t.Put(key, &v)
		return err
	}
	p := t.p
	var frames []uint32
	defer func() { p.UnrefAll(frames) }()
	for left := int(v.Len); left > 0; {
		var f [1]uint32
		if p.Alloc(f[:]) == 0 {
			return fmt.Errorf("%w: no free frame for the value", pmem.ErrFull)
		}
		frames = append(frames, f[0])
		n := min(left, t.size)
		if _, err := io.ReadFull(r, p.Frame(f[0])[:n]); err != nil {
			return err
		}
		p.Flush(p.Offset(f[0], 0), uint64(n))
		v.Frags = append(v.Frags, pmem.Fragment{Frame: f[0], Len: uint16(n)})
		left -= n
	}
	if err := v.Verify(p); err != nil {
		return err
	}
	_, err := t.Put(key, &v)
	return err
}
