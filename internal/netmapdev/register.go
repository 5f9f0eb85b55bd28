package netmapdev

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// kind is what kind of port a name stands for.
type kind interface {
	// memory is the memory of a number, or the shared one, with one more user.
	memory(d *Device, id uint16) (*memory, error)
	// lend makes a memory of the program's.
	lend(region []byte, e *extmem) (*memory, error)
	pools(m *memory, to *poolsInfo)
	// bind binds rings of a port of that name, which it makes if nobody has it.
	bind(d *Device, name string, req *register, m *memory) (binding, error)
	// describe fills in how many rings and slots such a port has, or would have.
	describe(d *Device, name string, req *register) error
}

func kindOf(name string) kind {
	if strings.HasPrefix(name, "pst") {
		return connections{}
	}
	return frames{}
}

// register is NETMAP_REQ_REGISTER: it binds the file to rings of a port.
func (f *File) register(c *call) error {
	d, req, k := f.d, bodyAs[register](c), kindOf(c.portName())
	if f.binding() != nil {
		return fmt.Errorf("the file is bound already: %w", unix.EBUSY)
	}
	if req.mode == modePipeMaster || req.mode == modePipeSlave {
		return fmt.Errorf("mode %d: a pipe is named x{1 or x}1: %w", req.mode, unix.EINVAL)
	}
	if req.flags&(flagMonitorTX|flagMonitorRX) != 0 {
		return refuse("monitors are not here; tcpdump sees what a NIC's port and the kernel see")
	}
	m, err := d.memoryOf(c, req.memID, k)
	if err != nil {
		return err
	}
	if c.leftOver() {
		return errors.Join(fmt.Errorf("an option: %w", unix.EOPNOTSUPP), d.drop(m))
	}
	b, err := k.bind(d, c.portName(), req, m)
	if err != nil {
		return errors.Join(err, d.drop(m))
	}
	if err := f.bind(b); err != nil {
		return errors.Join(err, b.release(), d.drop(m))
	}
	b.fill(req)
	req.memSize, req.memID = m.size, m.id
	return nil
}

// portInfo is NETMAP_REQ_PORT_INFO_GET, of a port or, without a name, of a memory.
func (f *File) portInfo(c *call) error {
	info := bodyAs[portInfo](c)
	req := &register{mode: modeAllNIC, txSlots: info.txSlots, rxSlots: info.rxSlots, txRings: info.txRings, rxRings: info.rxRings,
		hostTxRings: info.hostTxRings, hostRxRings: info.hostRxRings}
	m, err := f.d.look(c.portName(), info.memID, req)
	if err != nil {
		return err
	}
	info.memSize, info.memID = m.size, m.id
	if c.portName() != "" {
		info.txRings, info.rxRings, info.hostTxRings, info.hostRxRings = req.txRings, req.rxRings, req.hostTxRings, req.hostRxRings
		info.txSlots, info.rxSlots = req.txSlots, req.rxSlots
	}
	return f.d.drop(m)
}

// poolsInfo is NETMAP_REQ_POOLS_INFO_GET.
func (f *File) poolsInfo(c *call) error {
	info, name := bodyAs[poolsInfo](c), c.portName()
	if name == "" {
		return unix.ENXIO
	}
	m, err := f.d.look(name, info.memID, &register{mode: modeAllNIC})
	if err != nil {
		return err
	}
	kindOf(name).pools(m, info)
	return f.d.drop(m)
}

// look describes a port, and returns its memory with one more user. Without a name it
// is about a memory alone.
func (d *Device) look(name string, id uint16, req *register) (*memory, error) {
	k := kindOf(name)
	if name == "" {
		if m := d.memories[id]; m != nil {
			m.users++
			return m, nil
		}
		return k.memory(d, id)
	}
	if err := k.describe(d, name, req); err != nil {
		return nil, err
	}
	return k.memory(d, id)
}
