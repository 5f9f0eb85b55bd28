package netmapdev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/pastenet/paste/netmap"
	"golang.org/x/sys/unix"
)

// valeList is struct nmreq_vale_list.
type valeList struct {
	sw   uint16
	_    uint16
	port uint32
}

// switchPort is NETMAP_REQ_VALE_ATTACH and VALE_DETACH of "vale0:NIC". The switch lives
// in this process, and ends with it.
func (f *File) switchPort(c *call) error {
	d, name := f.d, c.portName()
	if !strings.HasPrefix(name, "vale") {
		return fmt.Errorf("%q: a port of a switch is named vale0:NIC: %w", name, unix.EINVAL)
	}
	if c.request == reqValeDetach {
		m := d.attached[name]
		if m == nil {
			return fmt.Errorf("%s is not attached: %w", name, unix.ENXIO)
		}
		delete(d.attached, name)
		return errors.Join(netmap.ValeDetach(name), d.drop(m))
	}
	if slices.Contains(netmap.ValeList(), name) {
		return fmt.Errorf("%s is attached already: %w", name, unix.EBUSY)
	}
	req := bodyAs[attach](c)
	m, err := frames{}.memory(d, req.reg.memID)
	if err != nil {
		return err
	}
	full := name
	if req.reg.mode == modeNICSW {
		full += "*"
	}
	if err := netmap.ValeAttach(context.Background(), full, netmap.Options{Memory: m.raw, Logger: d.opts.Logger}); err != nil {
		if e := errnoOf(err); e == unix.EIO || e == unix.ENXIO {
			err = fmt.Errorf("%v: %w", err, unix.EINVAL) // as upstream: there is nothing to attach
		}
		return errors.Join(err, d.drop(m))
	}
	d.attached[name] = m
	d.opts.Logger.Warn("the switch is in this program, and ends with it; `pastectl switch` runs one by itself", "port", name)
	req.reg.memID = m.id
	return nil
}

// switchList is NETMAP_REQ_VALE_LIST: the place of a port of that name, or, without
// one, the first port from a place on.
func (f *File) switchList(c *call) error {
	at, name := bodyAs[valeList](c), c.portName()
	sw, port, last := -1, uint32(0), ""
	for _, have := range netmap.ValeList() {
		if s, _, _ := strings.Cut(have, ":"); s != last {
			sw, port, last = sw+1, 0, s
		} else {
			port++
		}
		if have == name || name == "" && (sw > int(at.sw) || sw == int(at.sw) && port >= at.port) {
			*at = valeList{sw: uint16(sw), port: port}
			c.name = [64]byte{}
			copy(c.name[:], have)
			return nil
		}
	}
	if name != "" {
		return fmt.Errorf("%s: no switch of this process has it: %w", name, unix.ENXIO)
	}
	return unix.ENOENT
}

// copyOutName tells the program a name.
func (c *call) copyOutName(addr uint64) unix.Errno {
	name := c.name[:bytes.IndexByte(c.name[:], 0)+1]
	return copyOut(addr+uint64(unsafe.Offsetof(c.name)), name)
}
