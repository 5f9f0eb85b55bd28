package pmem

import (
	"fmt"
	"runtime/debug"
)

// guard runs f and turns a memory fault in it into an error. A mapped file
// that somebody truncates, or whose page the disk cannot deliver, answers a
// load with SIGBUS; Open, Check and the readers of the log run under guard.
// Outside of it, as when an application reads a payload, the fault is a panic
// that kills the process, as any other wild access: whoever shortens a file
// under a running server has taken its memory away.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		// What SetPanicOnFault makes the runtime panic with, and nothing else, has Addr.
		fault, ok := r.(interface {
			error
			Addr() uintptr
		})
		if !ok {
			panic(r)
		}
		err = fmt.Errorf("%w: the memory at %#x cannot be read; the file was truncated while it was mapped, or its medium fails", ErrTruncated, fault.Addr())
	}()
	return f()
}
