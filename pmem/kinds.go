package pmem

import (
	"fmt"
	"io"
	"sync"
)

// The kinds of roots that this package knows itself. Structures of other
// packages choose a number of their own, such as four letters, and register it.
const (
	KindValue uint32 = 0 // Value only; Frame is 0
	KindFrame uint32 = 1 // one named frame; Value is the owner's
)

// Walker tells which data frames a structure owns: it calls use once for every
// reference that the structure holds, so also twice for a frame that it refers
// to twice. It runs at Open, before the pool can be written; it must bear any
// content of the pool, return an error that wraps ErrDamaged when it does not
// understand what it reads, and stop at the first error of use.
type Walker func(p *Pool, r Root, use func(frame uint32) error) error

// Kind is what the pool has to know of a kind of structure.
type Kind struct {
	ID   uint32
	Name string // one word, for messages
	// Walk may be nil for a kind that owns no frames.
	Walk Walker
	// Check verifies the whole structure, payloads and checksums included, and
	// reports every problem that it finds; it returns early only for an error
	// of report. Walk has succeeded before. It may be nil.
	Check func(p *Pool, name string, r Root, report func(error) error) error
	// Dump writes the content of the structure, Restore makes a new structure
	// of that name in another pool from it; neither may depend on frame
	// numbers or the frame size. They may be nil for a kind that cannot be moved.
	Dump    func(p *Pool, name string, r Root, w io.Writer) error
	Restore func(p *Pool, name string, r io.Reader) error
}

var kinds = struct {
	sync.RWMutex
	m map[uint32]Kind
}{m: map[uint32]Kind{}}

func init() {
	RegisterKind(Kind{ID: KindValue, Name: "value", Dump: dumpValue, Restore: restoreValue})
	RegisterKind(Kind{ID: KindFrame, Name: "frame", Walk: walkFrame, Dump: dumpFrame, Restore: restoreFrame})
}

// RegisterKind makes a kind of structure known, usually from the init function
// of the package that implements it. It panics if the number is taken.
func RegisterKind(k Kind) {
	kinds.Lock()
	defer kinds.Unlock()
	if old, ok := kinds.m[k.ID]; ok {
		panic(fmt.Sprintf("pmem: kind %#x is registered twice, as %s and %s", k.ID, old.Name, k.Name))
	}
	kinds.m[k.ID] = k
}

// KindOf returns what was registered under a number.
func KindOf(id uint32) (Kind, bool) {
	kinds.RLock()
	defer kinds.RUnlock()
	k, ok := kinds.m[id]
	return k, ok
}

func walkFrame(_ *Pool, r Root, use func(uint32) error) error { return use(r.Frame) }

// walkRoots gives every structure the frames that it reaches.
func (p *Pool) walkRoots() {
	for name, r := range p.Roots() {
		k, ok := KindOf(r.Kind)
		if !ok {
			p.problem(fmt.Errorf("%w: root %q is of kind %#x, which this program does not know, so that it cannot tell which frames are in use; open the pool read-only, or with the program that wrote it", ErrKind, name, r.Kind))
			continue
		}
		if k.Walk == nil {
			continue
		}
		if err := guard(func() error { return k.Walk(p, r, p.use) }); err != nil {
			p.problem(fmt.Errorf("root %q (%s): %w", name, k.Name, err))
			if p.broken == nil {
				p.broken = map[string]bool{}
			}
			p.broken[name] = true
		}
	}
}

// use is the callback of walkers.
func (p *Pool) use(frame uint32) error {
	if !p.frames.adopt(frame) {
		return fmt.Errorf("%w: frame %d is no data frame; those are %d to %d", ErrDamaged, frame, p.g.first, p.g.frames-1)
	}
	p.progress.step(&p.frames)
	return nil
}
