package pmem

import (
	"errors"
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
// to twice, and says whether others may refer to that frame. It runs at Open,
// before the pool can be written; it must bear any content of the pool, return
// an error that wraps ErrDamaged when it does not understand what it reads, and
// stop at the first error of use.
type Walker func(p *Pool, r Root, use func(frame uint32, c Claim) error) error

// Claim is what a structure says about a frame that it refers to.
type Claim uint8

const (
	// Shared: others may refer to the frame as well. Payload is shared, between
	// the log, values and whoever took a reference.
	Shared Claim = iota
	// Sole: nothing else may refer to the frame, because the structure writes
	// to it or decides alone when it becomes free. A second reference, of
	// anybody, is damage.
	Sole
)

// Kind is what the pool has to know of a kind of structure.
type Kind struct {
	ID   uint32
	Name string // one word, for messages
	// Walk may be nil for a kind that owns no frames; Root.Frame is then 0.
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

// A named frame may have two names, or be part of a record.
func walkFrame(_ *Pool, r Root, use func(uint32, Claim) error) error { return use(r.Frame, Shared) }

// walkRoots gives every structure the frames that it reaches, and holds the
// roots to what SetRoot asks of them.
func (p *Pool) walkRoots() {
	blame := func(name string, k Kind, err error) {
		err = fmt.Errorf("root %q (%s): %w", name, k.Name, err)
		p.problem(err)
		if p.broken == nil {
			p.broken = map[string]error{}
		}
		p.broken[name] = err
	}
	for name, r := range p.Roots() {
		k, ok := KindOf(r.Kind)
		if !ok {
			p.problem(fmt.Errorf("%w: root %q is of kind %#x, which this program does not know, so that it cannot tell which frames are in use; open the pool read-only, or with the program that wrote it", ErrKind, name, r.Kind))
			continue
		}
		if k.Walk == nil {
			if r.Frame != 0 {
				blame(name, k, fmt.Errorf("%w: it names frame %d, and its kind has no frames", ErrDamaged, r.Frame))
			}
			continue
		}
		use := func(frame uint32, c Claim) error {
			err := p.use(frame, c)
			if err == errClaimed {
				err = p.claimedTwice(frame, name, c)
			}
			return err
		}
		if err := p.Guard(func() error { return k.Walk(p, r, use) }); err != nil {
			blame(name, k, err)
		}
	}
	// Another structure may own the frame, so this can be told only now.
	for name, r := range p.Roots() {
		if k, ok := KindOf(r.Kind); ok && r.Frame != 0 && p.broken[name] == nil && !p.frames.held(r.Frame) {
			blame(name, k, fmt.Errorf("%w: it names frame %d, which nothing owns", ErrDamaged, r.Frame))
		}
	}
	p.frames.sole = nil
}

// errClaimed says that a claim contradicts an earlier one.
var errClaimed = errors.New("claimed twice")

// use notes a reference that recovery has found.
func (p *Pool) use(frame uint32, c Claim) error {
	// Under the eyes of a live pool's reader frames change hands.
	known, ok := p.frames.adopt(frame, c == Sole && !p.Live())
	switch {
	case !known:
		return fmt.Errorf("%w: frame %d is no data frame; those are %d to %d", ErrDamaged, frame, p.g.first, p.g.frames-1)
	case !ok:
		return errClaimed
	}
	p.progress.step(&p.frames)
	return nil
}

// claimedTwice describes a frame that the root of that name claims against the
// claim of something else: to find that, it walks once more.
func (p *Pool) claimedTwice(frame uint32, name string, c Claim) error {
	other := p.claimant(frame, name)
	switch {
	case other == "":
		return fmt.Errorf("%w: it refers to frame %d twice, which it owns alone", ErrDamaged, frame)
	case c == Sole:
		return fmt.Errorf("%w: it owns frame %d alone, and %s refers to that as well", ErrDamaged, frame, other)
	}
	return fmt.Errorf("%w: it refers to frame %d, which %s owns alone", ErrDamaged, frame, other)
}

// claimant names the first that refers to frame, of the log and the roots
// before the one of that name.
func (p *Pool) claimant(frame uint32, name string) string {
	for r := range p.log.Records() {
		for _, f := range r.Fragments {
			if f.Frame == frame {
				return fmt.Sprintf("record %d of the log", r.Seq)
			}
		}
	}
	for n, r := range p.Roots() {
		if n == name {
			break
		}
		k, ok := KindOf(r.Kind)
		if !ok || k.Walk == nil {
			continue
		}
		err := k.Walk(p, r, func(f uint32, _ Claim) error {
			if f == frame {
				return errClaimed
			}
			return nil
		})
		if errors.Is(err, errClaimed) {
			return fmt.Sprintf("root %q (%s)", n, k.Name)
		}
	}
	return ""
}
