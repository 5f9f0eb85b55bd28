package netmapdev

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/pastenet/paste/netmap"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/sys/unix"
)

// memory is one memory region of netmap's, with the number that programs know it by:
// buffers, and rings and interfaces before or behind them.
type memory struct {
	id       uint16
	base     uintptr // of the region that the program sees
	size     uint64  // of it, bytes
	parts    [][]byte
	lent     bool         // the region is the program's
	users    int          // bindings
	mapped   bool         // by the program, which has not unmapped it
	unwanted [][2]uintptr // of lent memory: what the program has unmapped since
	free     func() error

	pool  *pmem.Pool     // of ports of connections: its frames are the buffers, else nil
	arena arena          // where their rings lie
	raw   *netmap.Memory // of ports of frames, else nil
}

// Numbers of the memories of ports that ask for no other: those of frames, as
// upstream has it, and those of connections.
const (
	rawMemory = 1
	pstMemory = 2
)

// span finds out where the memory begins and ends.
func span(m *memory) *memory {
	m.base = ^uintptr(0)
	end := uintptr(0)
	for _, b := range m.parts {
		from := uintptr(unsafe.Pointer(&b[0]))
		m.base, end = min(m.base, from), max(end, from+uintptr(len(b)))
	}
	m.size = uint64(end - m.base)
	return m
}

// offset is where p lies in the region.
func (m *memory) offset(p unsafe.Pointer) uint64 { return uint64(uintptr(p) - m.base) }

// touches says whether a range of addresses has a part of the memory.
func (m *memory) touches(addr, size uintptr) bool {
	for _, b := range m.parts {
		if at := uintptr(unsafe.Pointer(&b[0])); addr < at+uintptr(len(b)) && addr+size > at {
			return true
		}
	}
	return false
}

// memory returns the memory of a number with one more user. 0 stands for shared,
// which is made by make when it is first needed.
func (d *Device) memory(id, shared uint16, make func() (*memory, error)) (*memory, error) {
	if id == 0 {
		id = shared
	}
	m := d.memories[id]
	if m == nil {
		if id != shared {
			return nil, fmt.Errorf("memory %d: there is none of that number for such a port: %w", id, unix.EINVAL)
		}
		var err error
		if m, err = make(); err != nil {
			return nil, err
		}
		m.id = id
		d.memories[id] = m
	}
	m.users++
	return m, nil
}

// keep gives a memory of the program's a number, and one user.
func (d *Device) keep(m *memory) *memory {
	for d.lastMem++; d.lastMem <= pstMemory || d.memories[d.lastMem] != nil; d.lastMem++ {
	}
	m.id, m.lent, m.users = d.lastMem, true, 1
	d.memories[m.id] = m
	return m
}

// drop takes a user from a memory, and gives it back when that was the last.
func (d *Device) drop(m *memory) error {
	if m.users--; m.users > 0 {
		return nil
	}
	delete(d.memories, m.id)
	err := m.free()
	if m.mapped && !m.lent {
		// The program may unmap it only now: nobody else must get these addresses first.
		_, _ = unix.MmapPtr(-1, 0, unsafe.Add(nil, m.base), uintptr(m.size), unix.PROT_NONE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE|unix.MAP_FIXED_NOREPLACE)
	}
	for _, r := range m.unwanted {
		if _, _, e := unix.Syscall(unix.SYS_MUNMAP, r[0], r[1], 0); e != 0 {
			err = errors.Join(err, os.NewSyscallError("munmap", e))
		}
	}
	return err
}

// borrow looks at memory of the program's, which must not end the program if it is
// not there.
func borrow(e *extmem) ([]byte, error) {
	address, size := e.address, e.info.memSize&^(page-1)
	if address%page != 0 || address == 0 || size < 1<<20 || size > 1<<46 {
		return nil, fmt.Errorf("memory of %d bytes at %#x: must be a mapping of at least 1 MiB: %w", e.info.memSize, address, unix.EINVAL)
	}
	var b [1]byte
	for at := address; at < address+size; at += 1 << 20 {
		last := min(at+1<<20, address+size) - 1
		for _, p := range []uint64{at, last} {
			if copyIn(b[:], p) != 0 || copyOut(p, b[:]) != 0 {
				return nil, fmt.Errorf("memory at %#x: %w", p, unix.EFAULT)
			}
		}
	}
	at := uintptr(address)
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), size), nil
}

// ringRoom is how many bytes of lent memory are for rings and interfaces.
func ringRoom(e *extmem, size uint64) (uint64, error) {
	i := &e.info
	rings := (uint64(i.ringTotal)*uint64(i.ringSize) + uint64(i.ifTotal)*uint64(i.ifSize) + page - 1) &^ (page - 1)
	if rings == 0 {
		rings = size / 16 &^ (page - 1)
	}
	rings = max(rings, 64*page)
	if rings > size/2 {
		return 0, fmt.Errorf("%d bytes of rings in a memory of %d: %w", rings, size, unix.ENOMEM)
	}
	return rings, nil
}

// memoryOf is the memory that a request asks for, with one more user.
func (d *Device) memoryOf(c *call, id uint16, k kind) (*memory, error) {
	o := c.option(optExtmem)
	if o == nil {
		return k.memory(d, id)
	}
	e := at[extmem](o.body)
	m, err := func() (*memory, error) {
		region, err := borrow(e)
		if err != nil {
			return nil, err
		}
		return k.lend(region, e)
	}()
	o.status = uint32(errnoOf(err))
	if err != nil {
		return nil, fmt.Errorf("the program's memory: %w", err)
	}
	d.keep(m)
	size := e.info.memSize
	k.pools(m, &e.info)
	e.info.memSize = size
	return m, nil
}

// give is close of several things that are to be given back.
func give(all ...func() error) error {
	var errs []error
	for _, f := range all {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}
