package pmem

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"golang.org/x/sys/unix"
)

// memoryOp is something that touches a pool's memory.
type memoryOp struct {
	name   string
	writes bool // then the error wraps ErrIO, and stays
	do     func(p *Pool) error
}

func memoryOps(t *testing.T) []memoryOp {
	each := func(p *Pool) (err error) {
		for r, e := range p.Log().Records() {
			if err = e; err == nil {
				err = errors.Join(r.Verify(), second(r.WriteTo(io.Discard)), second(r.WriteTo(&bytes.Buffer{})))
			}
		}
		return err
	}
	return []memoryOp{
		{"Records", false, each},
		{"Record", false, func(p *Pool) error {
			r, err := p.Log().Record(20)
			if err == nil {
				err = r.Verify()
			}
			return err
		}},
		{"Follow", false, func(p *Pool) (err error) {
			for r, e := range p.Log().Follow(t.Context(), 12) {
				if err = e; err != nil {
					return err
				}
				if err = r.Verify(); err != nil {
					return err
				}
			}
			return nil
		}},
		{"Check", false, func(p *Pool) error {
			var all error
			_, err := p.Check(t.Context(), nil, func(e error) { all = errors.Join(all, e) })
			return errors.Join(err, all)
		}},
		{"Dump", false, func(p *Pool) error { return p.Dump(io.Discard, nil) }},
		{"Guard", false, func(p *Pool) error {
			return p.Guard(func() error { clear(p.Frame(p.Frames() - 1)); return nil })
		}},
		{"Append", true, func(p *Pool) error {
			r, err := p.Log().Record(20)
			if err != nil {
				// The head is gone as well; any frame in use will do.
				r.Fragments = []Fragment{{Frame: p.FirstFrame() + 20, Len: 10}}
			}
			if err := second(p.Log().Append(r.Fragments, true)); err != nil {
				return err
			}
			return p.Log().Commit() // which touches a payload as short as this
		}},
		{"AppendCopy", true, func(p *Pool) error { return second(p.Log().AppendCopy(make([]byte, copyLater+1))) }},
		{"Commit", true, func(p *Pool) error {
			if _, err := p.Log().Append(nil, false); err != nil {
				return err
			}
			return p.Log().Commit()
		}},
		{"Truncate", true, func(p *Pool) error { return p.Log().Truncate(15) }},
		{"SetRoot", true, func(p *Pool) error { return p.SetRoot("a", Root{}) }},
		{"DeleteRoot", true, func(p *Pool) error { return p.DeleteRoot("value") }},
		{"Persist", true, func(p *Pool) error { return p.Persist(p.Offset(p.Frames()-1, 0), 2048) }},
		{"Close", true, func(p *Pool) error { return p.Close() }},
	}
}

// A pool's file that is cut off while it is mapped is an error of everything
// that touches the memory and can return one, and the process goes on.
func TestMemoryGone(t *testing.T) {
	// All of it, all but the superblocks, and the data frames only.
	for _, cut := range []func(p *Pool) int64{
		func(*Pool) int64 { return 0 },
		func(*Pool) int64 { return 4096 },
		func(p *Pool) int64 { return int64(p.Offset(p.FirstFrame(), 0)) },
	} {
		for i, op := range memoryOps(t) {
			path, p := filled(t, Options{})
			p.Log().AppendCopy([]byte("so that Close has something to note"))
			qt.Assert(t, qt.IsNil(p.Log().Commit()))
			at := cut(p)
			metadata := at > 4096
			qt.Assert(t, qt.IsNil(os.Truncate(path, at)))
			err := op.do(p)
			if metadata && i > 7 && op.name != "Persist" { // these need no more
				if !errors.Is(err, ErrLost) { // noticed already
					qt.Check(t, qt.IsNil(err), qt.Commentf("%s", op.name))
				}
				continue
			}
			qt.Check(t, qt.ErrorIs(err, ErrTruncated), qt.Commentf("%s, cut at %d", op.name, at))
			qt.Check(t, qt.ErrorIs(err, ErrLost), qt.Commentf("%s, cut at %d", op.name, at))
			qt.Check(t, qt.StringContains(err.Error(), path+" was cut off"))
			qt.Check(t, qt.Equals(errors.Is(err, ErrIO), op.writes), qt.Commentf("%s: %v", op.name, err))
			if op.writes && strings.Contains("Append AppendCopy Commit Truncate", op.name) {
				_, again := p.Log().AppendCopy(nil)
				qt.Check(t, qt.ErrorIs(again, ErrIO), qt.Commentf("after %s", op.name))
			}
			p.Close()
		}
	}
}

func second[T any](_ T, err error) error { return err }

// A file that is cut off between two turns of a follower's loop ends the loop
// with an error, and one that waits when the log fails is woken.
func TestFollowMemoryGone(t *testing.T) {
	path, p := filled(t, Options{})
	n := 0
	for _, err := range p.Log().Follow(t.Context(), 0) {
		if n++; n == 1 {
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(os.Truncate(path, 0)))
			continue
		}
		qt.Assert(t, qt.ErrorIs(err, ErrTruncated))
	}
	qt.Assert(t, qt.Equals(n, 2))

	path, p = filled(t, Options{})
	waiting, done := make(chan struct{}), make(chan error)
	go func() {
		for r, err := range p.Log().Follow(t.Context(), p.Log().Next()-1) {
			if err != nil {
				done <- err
				return
			}
			if r.Seq == p.Log().Next()-1 {
				close(waiting)
			}
		}
	}()
	<-waiting
	qt.Assert(t, qt.IsNil(os.Truncate(path, 0)))
	_, err := p.Log().AppendCopy(make([]byte, copyLater+1))
	qt.Assert(t, qt.ErrorIs(err, ErrTruncated))
	qt.Assert(t, qt.ErrorIs(<-done, ErrTruncated))
}

// Open, Grow and Restore meet a file that becomes shorter while they run:
// something that they call on their way cuts it off.
func TestMemoryGoesMeanwhile(t *testing.T) {
	path, p := filled(t, Options{})
	var archive bytes.Buffer
	qt.Assert(t, qt.IsNil(p.Dump(&archive, nil)))
	qt.Assert(t, qt.IsNil(p.Close()))

	cut := false
	o := Options{Progress: func(uint64, uint64) {
		if !cut {
			qt.Check(t, qt.IsNil(os.Truncate(path, 4096)))
			cut = true
		}
	}}
	_, err := Open(path, o)
	qt.Assert(t, qt.IsTrue(cut))
	qt.Assert(t, qt.ErrorIs(err, ErrTruncated))
	qt.Assert(t, qt.StringContains(err.Error(), path))
	qt.Assert(t, qt.ErrorIs(Grow(path, 2*testSize), ErrTruncated))

	// The pool under construction has no name: it is found among the descriptors.
	dir := shm(t)
	in := &hookReader{Reader: bytes.NewReader(archive.Bytes()), hook: func() {
		fds, err := os.ReadDir("/proc/self/fd")
		qt.Check(t, qt.IsNil(err))
		for _, fd := range fds {
			to, _ := os.Readlink("/proc/self/fd/" + fd.Name())
			if strings.HasPrefix(to, dir) {
				qt.Check(t, qt.IsNil(os.Truncate("/proc/self/fd/"+fd.Name(), 4096)))
			}
		}
	}}
	_, err = Restore(in, filepath.Join(dir, "new"), Options{Size: testSize})
	qt.Assert(t, qt.ErrorIs(err, ErrTruncated))
	left, err := os.ReadDir(dir)
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.HasLen(left, 0))
}

type hookReader struct {
	io.Reader
	hook func()
}

func (h *hookReader) Read(b []byte) (int, error) {
	if h.hook != nil {
		h.hook()
		h.hook = nil
	}
	return h.Reader.Read(b)
}

// What goes wrong in the caller's code stays the caller's: a panic, and a fault
// in memory that is not the pool's.
func TestGuardPassesOn(t *testing.T) {
	f, err := memfd("foreign")
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	qt.Assert(t, qt.IsNil(f.Truncate(4096)))
	foreign, err := mapFile(f, 4096, unix.PROT_READ|unix.PROT_WRITE, 0)
	qt.Assert(t, qt.IsNil(err))
	defer unix.Munmap(foreign)
	qt.Assert(t, qt.IsNil(f.Truncate(0)))

	_, p := filled(t, Options{})
	recovered := func(f func()) (r any) {
		defer func() { r = recover() }()
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		f()
		return nil
	}
	r, err := p.Log().Record(20)
	qt.Assert(t, qt.IsNil(err))
	for name, f := range map[string]func(bad func()){
		"Guard":   func(bad func()) { p.Guard(func() error { bad(); return nil }) },
		"Dump":    func(bad func()) { p.Dump(io.Discard, func(uint64) { bad() }) },
		"WriteTo": func(bad func()) { r.WriteTo(hookWriter(bad)) },
		"Check":   func(bad func()) { p.Check(t.Context(), func(_, _ uint64) { bad() }, nil) },
		"Follow": func(bad func()) {
			for range p.Log().Follow(t.Context(), 0) {
				bad()
			}
		},
	} {
		fault, ok := recovered(func() { f(func() { foreign[0]++ }) }).(interface{ Addr() uintptr })
		qt.Check(t, qt.IsTrue(ok), qt.Commentf("%s", name))
		qt.Check(t, qt.Not(qt.Equals(fault.Addr(), 0)))
		qt.Check(t, qt.Equals(recovered(func() { f(func() { panic("mine") }) }), any("mine")), qt.Commentf("%s", name))
	}
	// A guard leaves the goroutine as it found it.
	qt.Assert(t, qt.IsFalse(debug.SetPanicOnFault(false)))

	// A payload that cannot be read must not leave half a record in the log.
	qt.Assert(t, qt.IsNotNil(recovered(func() { p.Log().AppendCopy(foreign) })))
	qt.Assert(t, qt.ErrorIs(p.Log().Commit(), ErrIO))
	q := reopened(t, p)
	qt.Assert(t, qt.Equals(q.Log().Next(), 51))
}

type hookWriter func()

func (h hookWriter) Write(b []byte) (int, error) { h(); return len(b), nil }
