package pmem

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"iter"
	"slices"
	"strings"
	"sync"
)

// Limits of the table of roots.
const (
	MaxRoots    = 62 // roots of one pool
	MaxRootName = 31 // bytes of a name
	RootValue   = 64 // bytes of Root.Value
)

const (
	rootsMagic   = "PASTROOT"
	rootsHeadLen = 64
	rootLen      = 128
	rootsLen     = 8192 // bytes of one copy: the header, MaxRoots entries, and some left over
)

// Root is where a name leads: to a structure of a registered kind.
type Root struct {
	Kind  uint32          // see Kind; KindValue and KindFrame need no registration
	Frame uint32          // first frame of the structure, 0 if it has none
	Value [RootValue]byte // whatever else the structure needs
}

type namedRoot struct {
	name string
	Root
}

// rootTable is the table as it is durable, sorted by name.
type rootTable struct {
	mu   sync.RWMutex
	gen  uint64
	list []namedRoot
}

func rootsOffset(g *geometry, copy int) uint64 {
	return uint64(leadFrames)*uint64(g.frameSize) + uint64(copy)*rootsLen
}

func encodeRoots(b []byte, seed uint32, gen uint64, list []namedRoot) (length uint64) {
	clear(b[:rootsHeadLen])
	copy(b, rootsMagic)
	le.PutUint64(b[8:], gen)
	le.PutUint32(b[16:], uint32(len(list)))
	for i := range list {
		e := b[rootsHeadLen+i*rootLen:][:rootLen]
		clear(e)
		copy(e, list[i].name)
		le.PutUint32(e[32:], list[i].Kind)
		le.PutUint32(e[36:], list[i].Frame)
		copy(e[40:], list[i].Value[:])
	}
	n := rootsHeadLen + len(list)*rootLen
	sum := crc32.Update(seed, castagnoli, b[:60])
	le.PutUint32(b[60:], crc32.Update(sum, castagnoli, b[rootsHeadLen:n]))
	return uint64(n)
}

// decodeRoots reads one copy of the table.
func decodeRoots(src []byte, seed uint32) (gen uint64, list []namedRoot, err error) {
	var b [rootsLen]byte // a live writer may change src between check and use
	copy(b[:], src)
	count := le.Uint32(b[16:])
	if string(b[:8]) != rootsMagic || count > MaxRoots {
		return 0, nil, fmt.Errorf("%w: not a table of roots", ErrDamaged)
	}
	sum := crc32.Update(seed, castagnoli, b[:60])
	if crc32.Update(sum, castagnoli, b[rootsHeadLen:rootsHeadLen+count*rootLen]) != le.Uint32(b[60:]) {
		return 0, nil, fmt.Errorf("%w: the checksum of the roots is wrong", ErrDamaged)
	}
	for i := range count {
		e := b[rootsHeadLen+i*rootLen:][:rootLen]
		r := namedRoot{name: string(bytes.TrimRight(e[:32], "\x00")), Root: Root{Kind: le.Uint32(e[32:]), Frame: le.Uint32(e[36:])}}
		copy(r.Value[:], e[40:])
		if checkRootName(r.name) != nil || i > 0 && list[i-1].name >= r.name {
			return 0, nil, fmt.Errorf("%w: root %d has the name %q", ErrDamaged, i, r.name)
		}
		list = append(list, r)
	}
	return le.Uint64(b[8:]), list, nil
}

// read takes the newest valid copy, and tells which one a crash in the middle
// of a change left behind or time has rotten.
func (t *rootTable) read(mem []byte, g *geometry, seed uint32) (badCopy, error) {
	gen0, list0, err0 := decodeRoots(mem[rootsOffset(g, 0):], seed)
	gen1, list1, err1 := decodeRoots(mem[rootsOffset(g, 1):], seed)
	switch {
	case err0 == nil && (err1 != nil || gen0 >= gen1):
		t.gen, t.list = gen0, list0
		if err1 != nil || gen0 != gen1 {
			return secondBad, nil
		}
		return noneBad, nil
	case err1 == nil:
		t.gen, t.list = gen1, list1
		return firstBad, nil
	}
	return noneBad, fmt.Errorf("both copies of the roots are invalid: %w", err0)
}

// writeRoots makes a table durable in both copies, one strictly after the
// other: whichever single copy a crash tears or time rots, the other is right.
func writeRoots(mem []byte, dom Domain, g *geometry, seed uint32, gen uint64, list []namedRoot) error {
	for i := range 2 {
		if err := writeRootsCopy(mem, dom, g, seed, gen, list, i); err != nil {
			return err
		}
	}
	return nil
}

func writeRootsCopy(mem []byte, dom Domain, g *geometry, seed uint32, gen uint64, list []namedRoot, i int) error {
	off := rootsOffset(g, i)
	n := encodeRoots(mem[off:], seed, gen, list)
	dom.Flush(off, n)
	return dom.Fence()
}

func checkRootName(name string) error {
	if name == "" || len(name) > MaxRootName || strings.ContainsRune(name, 0) {
		return fmt.Errorf("%w: root name %q; it must have 1 to %d bytes, none of them zero", ErrRoot, name, MaxRootName)
	}
	return nil
}

func (t *rootTable) find(name string) (int, bool) {
	return slices.BinarySearchFunc(t.list, name, func(r namedRoot, name string) int { return strings.Compare(r.name, name) })
}

// Root returns the root of that name.
func (p *Pool) Root(name string) (Root, bool) {
	p.roots.mu.RLock()
	defer p.roots.mu.RUnlock()
	i, ok := p.roots.find(name)
	if !ok {
		return Root{}, false
	}
	return p.roots.list[i].Root, true
}

// Roots yields a snapshot of all roots, in the order of their names.
func (p *Pool) Roots() iter.Seq2[string, Root] {
	p.roots.mu.RLock()
	list := p.roots.list // never changed in place
	p.roots.mu.RUnlock()
	return func(yield func(string, Root) bool) {
		for _, r := range list {
			if !yield(r.name, r.Root) {
				return
			}
		}
	}
}

// SetRoot makes name lead to r, durably when it returns; a crash on the way
// finds the old or the new root. What r leads to must be durable before.
//
// The references to frames that the structure holds are the caller's, from
// Alloc; from the next Open on, the kind's Walker speaks for them. ErrKind
// when the kind is not registered: such a pool could not be opened again.
func (p *Pool) SetRoot(name string, r Root) error {
	if err := p.setRoot(name, r); err != nil {
		return fmt.Errorf("set root %q: %w", name, err)
	}
	return nil
}

func (p *Pool) setRoot(name string, r Root) error {
	if err := checkRootName(name); err != nil {
		return err
	}
	k, ok := KindOf(r.Kind)
	switch {
	case !ok:
		return fmt.Errorf("%w: kind %#x is not registered", ErrKind, r.Kind)
	case r.Frame != 0 && k.Walk == nil:
		return fmt.Errorf("%w: frame %d of a %s, which has none", ErrRoot, r.Frame, k.Name)
	case (r.Frame != 0 || r.Kind == KindFrame) && p.Refs(r.Frame) == 0:
		return fmt.Errorf("%w: frame %d is not a data frame in use", ErrRoot, r.Frame)
	}
	return p.changeRoots(func(list []namedRoot, i int, found bool) ([]namedRoot, error) {
		if found {
			list[i].Root = r
			return list, nil
		}
		if len(list) == MaxRoots {
			return nil, fmt.Errorf("%w: a pool has at most %d roots", ErrFull, MaxRoots)
		}
		return slices.Insert(list, i, namedRoot{name, r}), nil
	}, name)
}

// DeleteRoot removes a name, durably when it returns; that there is none is no
// error. The frames of the structure are the caller's to give up afterwards.
func (p *Pool) DeleteRoot(name string) error {
	if _, ok := p.Root(name); !ok {
		return nil
	}
	err := p.changeRoots(func(list []namedRoot, i int, found bool) ([]namedRoot, error) {
		if found {
			list = slices.Delete(list, i, i+1)
		}
		return list, nil
	}, name)
	if err != nil {
		return fmt.Errorf("delete root %q: %w", name, err)
	}
	return nil
}

// changeRoots applies change to a copy of the list and makes that durable.
func (p *Pool) changeRoots(change func(list []namedRoot, i int, found bool) ([]namedRoot, error), name string) error {
	t := &p.roots
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case p.mem == nil:
		return ErrClosed
	case p.readOnly:
		return ErrReadOnly
	}
	i, found := t.find(name)
	list, err := change(slices.Clone(t.list), i, found)
	if err != nil {
		return err
	}
	if err := p.storing(func() error { return writeRoots(p.mem, p.dom, &p.g, p.seed, t.gen+1, list) }); err != nil {
		return err
	}
	t.gen, t.list = t.gen+1, list
	return nil
}
