package netmap

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/pastenet/paste/netmap/portspec"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// shared is the memory of all ports that name none.
var shared struct {
	sync.Mutex
	mem  *Memory
	uses int
}

// findMemory finds the port's memory, or makes it.
func (p *Port) findMemory() (err error) {
	s := &p.spec
	said := 0
	for _, is := range []bool{p.opts.Memory != nil, s.Extmem != nil, s.Share != "", s.MemID != 0} {
		if is {
			said++
		}
	}
	if said > 1 {
		return errors.New("more than one memory: Options.Memory, @extmem, @share and @N exclude each other")
	}
	switch {
	case p.opts.Memory != nil:
		p.mem = p.opts.Memory
	case s.Extmem != nil:
		err = p.openExtmem(s.Extmem)
	case s.Share != "" || s.MemID != 0:
		p.mem, err = ports.memoryOf(s)
	default:
		err = p.useShared()
	}
	if err != nil {
		return err
	}
	if err := p.mem.use(); err != nil {
		return err
	}
	p.atEnd(func() error { p.mem.unuse(); return nil })
	return nil
}

func (p *Port) useShared() (err error) {
	shared.Lock()
	defer shared.Unlock()
	if shared.mem == nil {
		if shared.mem, err = NewMemory(MemoryOptions{}); err != nil {
			return err
		}
	}
	shared.uses++
	p.mem = shared.mem
	p.atEnd(func() error {
		shared.Lock()
		defer shared.Unlock()
		if shared.uses--; shared.uses > 0 {
			return nil
		}
		m := shared.mem
		shared.mem = nil
		return m.Close()
	})
	return nil
}

// memoryOf finds the memory of another port, or the one with a number.
func (g *registry) memoryOf(s *portspec.Spec) (*Memory, error) {
	var want *portspec.Spec
	if s.Share != "" {
		var err error
		if want, err = portspec.Parse(s.Share); err != nil {
			return nil, fmt.Errorf("memory of another port: %w", err)
		}
	}
	g.Lock()
	defer g.Unlock()
	for _, p := range g.list {
		if want == nil && int(p.mem.id) == s.MemID || want != nil && p.spec.Port() == want.Port() {
			return p.mem, nil
		}
	}
	if want == nil {
		return nil, fmt.Errorf("memory %d: no port of this process has it", s.MemID)
	}
	return nil, fmt.Errorf("memory of %s: this process has no such port", s.Share)
}

// openExtmem makes memory of a file: a pool's, or any that AF_XDP takes.
func (p *Port) openExtmem(e *portspec.Extmem) error {
	pool, err := pmem.Open(e.File, pmem.Options{})
	if err == nil {
		if p.mem, err = PoolMemory(pool, MemoryOptions{}); err != nil {
			return errors.Join(err, pool.Close())
		}
		p.atEnd(func() error { return errors.Join(p.mem.Close(), pool.Close()) })
		return nil
	}
	if !errors.Is(err, pmem.ErrNotPool) {
		return err
	}
	f, err := os.OpenFile(e.File, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("extmem: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("extmem: %w", err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("extmem: map %d bytes of %s: %w", st.Size(), e.File, os.NewSyscallError("mmap", err))
	}
	p.mem, err = MemoryOver(mem, MemoryOptions{Buffers: e.BufNum, BufSize: e.BufSize, RingArea: (e.RingNum*e.RingSize + e.IfNum*e.IfSize + 4095) &^ 4095})
	if err != nil {
		return errors.Join(err, unix.Munmap(mem))
	}
	p.atEnd(func() error { return errors.Join(p.mem.Close(), unix.Munmap(mem)) })
	return nil
}
