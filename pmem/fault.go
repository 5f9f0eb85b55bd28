package pmem

import (
	"fmt"
	"runtime/debug"
	"unsafe"
)

// Guard runs f and turns a fault in the pool's memory into an error that wraps
// ErrTruncated and says which byte it was. A mapped file that somebody
// truncates, or whose page the medium cannot deliver, answers a load or store
// with SIGBUS, which otherwise ends the process.
//
// Whatever of this package, and of the structures in pools, returns an error
// does that itself. Guard is for code that touches slices of the pool: what
// Frame, Mem and Record.Payload return. It must leave f's data in a state in
// which f may have ended anywhere. Guards may be nested and cost a few
// nanoseconds. Any other panic of f, a fault in other memory included, goes on
// as a panic.
func (p *Pool) Guard(f func() error) (err error) {
	defer func(old bool) {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			err = p.faultError(r)
		}
	}(debug.SetPanicOnFault(true))
	return f()
}

// storing is Guard for what is to become durable: a fault means that it did not,
// and wraps ErrIO as well.
func (p *Pool) storing(f func() error) error {
	if err := p.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrIO, err)
	}
	pin()
	defer unpin()
	var err error
	if fault := p.Guard(func() error { err = f(); return nil }); fault != nil {
		return fmt.Errorf("%w: %w", ErrIO, fault)
	}
	return err
}

// guard is Pool.Guard for memory that is no pool's yet.
func guard(name string, mem []byte, dom Domain, f func() error) (err error) {
	defer func(old bool) {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			err = faultError(r, name, mem, mapped(dom))
		}
	}(debug.SetPanicOnFault(true))
	return f()
}

// mapped returns what a Domain stores to besides the pool's memory.
func mapped(dom Domain) []byte {
	if d, ok := dom.(*daxDomain); ok {
		return d.mapped
	}
	return nil
}

// faultError describes a fault in the pool's memory: the file has gone, or the
// medium fails.
func (p *Pool) faultError(r any) error {
	err := faultError(r, p.file.path(), p.mem, mapped(p.dom))
	if lost := p.watch.look(&p.file, p.g.size); lost != nil {
		return lost
	}
	return err
}

// faultError describes a fault in one of the mappings of the pool of that name.
// It panics again with anything else.
func faultError(r any, name string, mappings ...[]byte) error {
	// What SetPanicOnFault makes the runtime panic with, and nothing else, has Addr.
	fault, ok := r.(interface {
		error
		Addr() uintptr
	})
	if !ok {
		panic(r)
	}
	for _, m := range mappings {
		off := fault.Addr() - uintptr(unsafe.Pointer(unsafe.SliceData(m)))
		if off >= uintptr(len(m)) {
			continue
		}
		if name == "" {
			name = "the pool"
		}
		return fmt.Errorf("%w: byte %d of %s cannot be reached; the file was truncated while it was mapped, or its medium fails", ErrTruncated, off, name)
	}
	panic(r)
}
