package pmem

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// users are those that work with a pool's memory, and may go on to do so
// whatever else happens, such as a NIC that receives into it.
type users struct {
	mu     sync.Mutex
	names  []string
	closed bool
	err    error // of Close
}

// Hold keeps the pool open: until release is called, Close fails with ErrBusy,
// and names by, such as "the port on eth0". release may be called again. A
// closed pool cannot be held: ErrClosed.
func (p *Pool) Hold(by string) (release func(), err error) {
	u := &p.users
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, fmt.Errorf("use pool %s: %w", p.Path(), ErrClosed)
	}
	u.names = append(u.names, by)
	return sync.OnceFunc(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.names = slices.Delete(u.names, slices.Index(u.names, by), slices.Index(u.names, by)+1)
	}), nil
}

// Close unmaps the pool and gives up its lock. Nothing is committed by it.
// No method may run at the same time, and no slice of the pool may be used
// afterwards. While somebody holds the pool it fails with ErrBusy, and nothing
// has happened. After it has closed the pool, further calls return the same.
func (p *Pool) Close() error {
	u := &p.users
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.closed:
		return u.err
	case len(u.names) > 0:
		return fmt.Errorf("close pool %s: %w by %s; close that first", p.Path(), ErrBusy, strings.Join(u.names, " and "))
	}
	u.closed, u.err = true, p.close()
	return u.err
}

func (p *Pool) close() error {
	p.watch.end()
	err := p.log.close()
	p.frames.close()
	p.roots.mu.Lock()
	p.mem = nil
	p.roots.mu.Unlock()
	return errors.Join(err, p.memory.close(), p.file.Close())
}
