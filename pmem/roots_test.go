package pmem

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// kindChain is a structure of the tests: frames that each begin with the index
// of the next, 0 at the end.
const kindChain = 0x54534554

func init() {
	RegisterKind(Kind{ID: kindChain, Name: "chain", Walk: walkChain})
}

func walkChain(p *Pool, r Root, use func(uint32, Claim) error) error {
	for f, n := r.Frame, 0; f != 0; n++ {
		if err := use(f, Sole); err != nil {
			return err
		}
		if n > int(p.Frames()) {
			return fmt.Errorf("%w: the chain is a ring", ErrDamaged)
		}
		f = le.Uint32(p.Frame(f))
	}
	return nil
}

func TestRoots(t *testing.T) {
	path, p := newFile(t, Options{})
	for i := range MaxRoots {
		qt.Assert(t, qt.IsNil(p.SetRoot(fmt.Sprintf("root %d", i), Root{Value: [RootValue]byte{byte(i)}})))
	}
	qt.Assert(t, qt.ErrorIs(p.SetRoot("one more", Root{}), ErrFull))
	qt.Assert(t, qt.IsNil(p.SetRoot("root 7", Root{Value: [RootValue]byte{99}})))
	qt.Assert(t, qt.IsNil(p.DeleteRoot("root 9")))
	qt.Assert(t, qt.IsNil(p.DeleteRoot("root 9")))
	for _, bad := range []string{"", strings.Repeat("x", MaxRootName+1), "a\x00b"} {
		qt.Assert(t, qt.ErrorIs(p.SetRoot(bad, Root{}), ErrRoot))
	}
	qt.Assert(t, qt.ErrorIs(p.SetRoot("x", Root{Kind: 0x999}), ErrKind))
	qt.Assert(t, qt.ErrorIs(p.SetRoot("x", Root{Kind: KindFrame, Frame: p.FirstFrame()}), ErrRoot))
	var f [1]uint32
	p.Alloc(f[:])
	qt.Assert(t, qt.ErrorIs(p.SetRoot("x", Root{Kind: KindValue, Frame: f[0]}), ErrRoot))
	p.Close()
	qt.Assert(t, qt.ErrorIs(p.SetRoot("x", Root{}), ErrClosed))

	p, err := Open(path, Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	n := 0
	for name, r := range p.Roots() {
		var i int
		fmt.Sscanf(name, "root %d", &i)
		if i == 7 {
			i = 99
		}
		qt.Assert(t, qt.Equals(int(r.Value[0]), i))
		n++
	}
	qt.Assert(t, qt.Equals(n, MaxRoots-1))
	_, ok := p.Root("root 9")
	qt.Assert(t, qt.IsFalse(ok))
	qt.Assert(t, qt.ErrorIs(p.SetRoot("root 1", Root{}), ErrReadOnly))
}

// A named frame and a chain keep their frames over a restart, and nothing else
// does.
func TestReachability(t *testing.T) {
	path, p := newFile(t, Options{})
	var f [5]uint32
	p.Alloc(f[:])
	copy(p.Frame(f[0]), "named")
	le.PutUint32(p.Frame(f[1]), f[2])
	le.PutUint32(p.Frame(f[2]), 0)
	qt.Assert(t, qt.IsNil(p.SetRoot("packet", Root{Kind: KindFrame, Frame: f[0]})))
	qt.Assert(t, qt.IsNil(p.SetRoot("chain", Root{Kind: kindChain, Frame: f[1]})))
	p.Close()

	var done, total uint64
	p, err := Open(path, Options{Progress: func(d, n uint64) { done, total = d, n }})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(done, total))
	qt.Assert(t, qt.Equals(int(p.Frames()-p.FirstFrame())-p.Free(), 3))
	r, ok := p.Root("packet")
	qt.Assert(t, qt.IsTrue(ok))
	qt.Assert(t, qt.Equals(string(p.Frame(r.Frame)[:5]), "named"))
	all := make([]uint32, p.Frames())
	for _, g := range all[:p.Alloc(all)] {
		qt.Assert(t, qt.Not(qt.SliceContains(f[:3], g)))
	}

	// What leads nowhere is damage.
	le.PutUint32(p.Frame(f[2]), p.Frames()+5)
	p.Close()
	_, err = Open(path, Options{})
	qt.Assert(t, qt.ErrorIs(err, ErrDamaged))
	qt.Assert(t, qt.ErrorMatches(err, `.*root "chain" \(chain\).*no data frame.*`))
	p, err = Open(path, Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	qt.Assert(t, qt.HasLen(p.Problems(), 1))
}

func TestUnknownKind(t *testing.T) {
	path, p := newFile(t, Options{})
	list := []namedRoot{{"tree of tomorrow", Root{Kind: 77}}}
	qt.Assert(t, qt.IsNil(writeRoots(p.mem, p.dom, &p.g, p.seed, 9, list)))
	p.Close()
	_, err := Open(path, Options{})
	qt.Assert(t, qt.ErrorIs(err, ErrKind))
	qt.Assert(t, qt.ErrorMatches(err, `.*root "tree of tomorrow" is of kind 0x4d, which this program does not know.*`))
	p, err = Open(path, Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	defer p.Close()
	qt.Assert(t, qt.ErrorIs(p.Problems()[0], ErrKind))
}

func TestRottenRoots(t *testing.T) {
	path, p := newFile(t, Options{})
	qt.Assert(t, qt.IsNil(p.SetRoot("a", Root{Value: [RootValue]byte{1}})))
	offs := []int64{int64(rootsOffset(&p.g, 0)) + 70, int64(rootsOffset(&p.g, 1)) + 70}
	p.Close()
	for _, off := range offs {
		flip(t, path, off)
		p, err := Open(path, Options{})
		qt.Assert(t, qt.IsNil(err))
		r, _ := p.Root("a")
		qt.Assert(t, qt.Equals(r.Value[0], 1))
		p.Close()
	}
	flip(t, path, offs[0])
	flip(t, path, offs[1])
	_, err := Open(path, Options{})
	qt.Assert(t, qt.ErrorIs(err, ErrDamaged))
}
