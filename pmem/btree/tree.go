package btree

import (
	"errors"
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/pastenet/paste/pmem"
)

// Options of a tree.
type Options struct {
	// Reserve is how many frames Put leaves to Delete and to Commit, so that
	// room can still be made when the pool is full; default 64.
	Reserve int
}

// DefaultReserve is the Reserve that is used when none is given.
const DefaultReserve = 64

// root is one generation of the tree.
type root struct {
	gen    uint64
	frame  uint32 // of the root node; 0 for an empty tree
	height int    // levels; 0 for an empty tree
	count  uint64 // keys
	tag    uint64 // the owner's, see Tree.SetTag
}

// view is a generation to be read.
type view struct {
	p    *pmem.Pool
	name string
	size int // of a frame
	seed uint32
	wary bool // something is wrong with the tree: every node is checked when it is read
	root
}

func newView(p *pmem.Pool, name string, r root) view {
	return view{p: p, name: name, size: p.FrameSize(), seed: seedOf(p), wary: p.RootProblem(name) != nil, root: r}
}

// Tree is a B+ tree in a pool. One goroutine at a time may call its methods;
// only Snapshot, and everything of a Snapshot, may be called from any.
type Tree struct {
	view    // the working generation
	reserve int

	dirty    []uint32 // frames written in the working generation
	garbage  []uint32 // references that the working generation does not need any more
	spare    []uint32 // frames to be written
	unsealed frameSet // nodes written since the last commit, without a checksum yet
	known    frameSet // nodes that were written or checked by this Tree
	pending  *Commit  // the commit under way
	changing bool     // a change has begun
	reclaim  []trash  // waits for readers, oldest first
	failed   error

	scratch []byte
	cell    []byte
	old     Value
	path    []step
	way     way

	mu      sync.Mutex
	durable root
	pins    map[uint64]int // readers by generation
}

// trash is what nobody needs who reads generation gen or a later one.
type trash struct {
	gen  uint64
	refs []uint32
}

// step is one node on the way from the root to a leaf.
type step struct {
	n node
	i int // of the cell taken
}

// Create makes an empty tree of that name, durably. It fails with
// pmem.ErrExists if the name is taken.
func Create(p *pmem.Pool, name string, o Options) (*Tree, error) {
	if _, ok := p.Root(name); ok {
		return nil, fmt.Errorf("create tree %q: %w", name, pmem.ErrExists)
	}
	t := newTree(p, name, root{gen: 1}, o)
	if err := p.SetRoot(name, t.durable.encode()); err != nil {
		return nil, fmt.Errorf("create tree: %w", err)
	}
	return t, nil
}

// Open opens the tree of that name as it was last committed. That took
// nothing but reading its root: which frames it owns was found out when the
// pool was opened. Of a tree in which damage was found then, which only a pool
// opened read-only can have, what is not damaged can be read.
func Open(p *pmem.Pool, name string, o Options) (*Tree, error) {
	r, ok := p.Root(name)
	if !ok {
		return nil, fmt.Errorf("open tree %q: %w", name, ErrNoTree)
	}
	d, err := decodeRoot(r)
	if err != nil {
		return nil, fmt.Errorf("open tree %q: %w", name, err)
	}
	return newTree(p, name, d, o), nil
}

// OpenOrCreate opens the tree of that name, or makes an empty one.
func OpenOrCreate(p *pmem.Pool, name string, o Options) (*Tree, error) {
	if _, ok := p.Root(name); ok {
		return Open(p, name, o)
	}
	return Create(p, name, o)
}

// ErrNoTree says that no root has the name, or that it leads to something else.
var ErrNoTree = errors.New("no such tree")

func newTree(p *pmem.Pool, name string, r root, o Options) *Tree {
	if o.Reserve <= 0 {
		o.Reserve = DefaultReserve
	}
	t := &Tree{
		view: newView(p, name, r), reserve: o.Reserve, durable: r,
		scratch:  make([]byte, p.FrameSize()),
		unsealed: newFrameSet(p.Frames()),
		known:    newFrameSet(p.Frames()),
		pins:     map[uint64]int{},
	}
	t.gen++
	return t
}

// seedOf begins every checksum with the pool's name, so that what an earlier
// pool left behind in the same memory is not taken for ours.
func seedOf(p *pmem.Pool) uint32 {
	u := p.UUID()
	return crc32.Checksum(u[:], castagnoli)
}

// Pool is where the tree lives.
func (t *Tree) Pool() *pmem.Pool { return t.p }

// Height is the number of levels, 0 for an empty tree.
func (t *Tree) Height() int { return t.height }

// Tag returns what SetTag stored last, or what was found by Open.
func (t *Tree) Tag() uint64 { return t.tag }

// SetTag stores a number with the next commit, such as the last log record
// whose changes are in the tree.
func (t *Tree) SetTag(tag uint64) { t.tag = tag }

// Dirty is how many frames the next commit has to write.
func (t *Tree) Dirty() int { return len(t.dirty) }

// Close gives the tree's spare frames back to the pool. Nothing is committed.
// Snapshots must be closed before.
func (t *Tree) Close() {
	t.p.UnrefAll(t.spare)
	t.spare = nil
	t.failed = pmem.ErrClosed
}

// usable says why the tree cannot be changed any more, if so.
func (t *Tree) usable() error {
	if t.failed == nil && t.p.ReadOnly() {
		return pmem.ErrReadOnly
	}
	return t.failed
}

// change runs f and turns the panic of damaged nodes, and a fault in the pool's
// memory, into an error. A change that was interrupted may be half done; then
// the tree is not usable afterwards.
func (t *Tree) change(f func() error) (err error) {
	defer func() {
		r := recover()
		d, isDamage := r.(*damage)
		if isDamage {
			err = damaged(t.name, d)
		}
		if t.changing && t.failed == nil {
			if t.failed = err; r != nil && !isDamage {
				t.failed = fmt.Errorf("tree %q: a panic interrupted a change", t.name)
			}
		}
		t.changing, t.way.ok = false, false
		if r != nil && !isDamage {
			panic(r)
		}
	}()
	return t.p.Guard(f)
}

// sound returns the node in a frame for a change: whole and right as far as it
// can be known. A copy of damage would get a right checksum, and a change in
// what contradicts itself would write where it must not. So a node that somebody
// else has written is checked as a whole once; what this Tree has written or
// checked is that still, if its checksum is right, or it is not sealed yet. Keys
// must lie from lo on and below hi (nil: no limit).
func (t *Tree) sound(frame uint32, level int, lo, hi []byte) node {
	n := t.node(frame, level)
	if t.unsealed.has(frame) {
		return n
	}
	switch {
	case !t.known.has(frame):
		n.check(t.seed, frame, level, lo, hi)
		t.known.add(frame)
	case !n.intact(t.seed):
		n.bad("checksum mismatch")
	}
	if n.gen() >= t.gen {
		n.bad("generation %d in a tree of generation %d", n.gen(), t.gen-1)
	}
	return n
}

// damaged returns the error for what a function of this package panicked with.
func damaged(name string, r any) error {
	d, ok := r.(*damage)
	if !ok {
		panic(r)
	}
	if name == "" {
		return d
	}
	return fmt.Errorf("tree %q: %w", name, d)
}

// node returns the node in a frame that must be at that level.
func (v *view) node(frame uint32, level int) node {
	n := node(v.p.Frame(frame))
	if n == nil {
		panic(&damage{frame, "is no data frame"})
	}
	if le.Uint32(n) != nodeMagic || n.level() != level || n.frame() != frame || nodeHead+2*n.count() > len(n) {
		panic(&damage{frame, fmt.Sprintf("is not a node of level %d", level)})
	}
	return n
}

// within returns the node in a frame, whose keys must lie from lo on and below
// hi (nil: no limit). Only a wary view looks at these.
func (v *view) within(frame uint32, level int, lo, hi []byte) node {
	n := v.node(frame, level)
	if v.wary {
		n.check(v.seed, frame, level, lo, hi)
	}
	return n
}

// MostFrames is how many frames a Put of a value in that many fragments may take,
// also if the tree has grown by a level since.
func (t *Tree) MostFrames(frags int) int {
	return 2*(t.height+1) + 2 + overflowFrames(t.size, frags)
}

// Reserve takes n frames from the pool for the next changes, besides those that are
// kept for Delete: changes that need no more (MostFrames) do not fail with
// pmem.ErrFull then.
func (t *Tree) Reserve(n int) error {
	if err := t.usable(); err != nil {
		return err
	}
	return t.need(n, false)
}

// need makes sure that n frames can be taken. Only with dip may these be the
// reserve.
func (t *Tree) need(n int, dip bool) error {
	want := n
	if !dip {
		want += t.reserve
	}
	for len(t.spare) < want {
		k := len(t.spare)
		t.spare = append(t.spare, make([]uint32, max(want-k, 32))...)
		got := t.p.Alloc(t.spare[k:])
		t.spare = t.spare[:k+got]
		if len(t.spare) >= want {
			break
		}
		if got == 0 && !t.release(1<<30) {
			return fmt.Errorf("tree %q: %w: %d free frames are needed for a change; %d of %d are left", t.name, pmem.ErrFull, n, len(t.spare), t.p.Frames()-t.p.FirstFrame())
		}
	}
	return nil
}

// takeFrame takes a frame whose presence need has made sure of.
func (t *Tree) takeFrame() uint32 {
	f := t.spare[len(t.spare)-1]
	t.spare = t.spare[:len(t.spare)-1]
	t.dirty = append(t.dirty, f)
	return f
}

func (t *Tree) newNode(level int) node {
	f := t.takeFrame()
	t.unsealed.add(f)
	t.known.add(f)
	n := node(t.p.Frame(f))
	n.init(f, t.gen, level)
	return n
}

// own returns a node that may be changed in place: n itself, or a copy.
func (t *Tree) own(n node) node {
	if n.gen() == t.gen {
		return n
	}
	f := t.takeFrame()
	t.unsealed.add(f)
	t.known.add(f)
	c := node(t.p.Frame(f))
	copy(c, n)
	le.PutUint32(c[16:], f)
	le.PutUint64(c[8:], t.gen)
	t.discard(n)
	return c
}

// discard gives up a node of the working generation.
func (t *Tree) discard(n node) { t.garbage = append(t.garbage, n.frame()) }

// dropValue gives up what a leaf's value refers to.
func (t *Tree) dropValue(n node, b []byte) {
	if len(b) > 0 && b[0] == kindInline {
		return
	}
	t.decode(n, b, &t.old)
	for _, f := range t.old.Frags {
		t.garbage = append(t.garbage, f.Frame)
	}
	if b[0] == kindOverflow {
		t.overflow(n, b, func(f uint32, _ overflowFrame) { t.garbage = append(t.garbage, f) })
	}
}
