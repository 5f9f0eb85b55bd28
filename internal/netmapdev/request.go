package netmapdev

import (
	"bytes"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is one NIOCCTRL on its way: the request's header, body and options, copied
// from the program's memory, so that it cannot change them meanwhile.
type call struct {
	header
	body    []byte
	options []*optionCopy
}

// optionCopy is an option and where it came from.
type optionCopy struct {
	optionHead
	addr uint64
	body []byte
}

// portName is the name in the header, up to its zero.
func (c *call) portName() string {
	c.name[len(c.name)-1] = 0
	return string(c.name[:bytes.IndexByte(c.name[:], 0)])
}

// option returns the option of a kind, or nil, and marks it as understood.
func (c *call) option(kind uint32) *optionCopy {
	for _, o := range c.options {
		if o.kind == kind {
			o.status = 0
			return o
		}
	}
	return nil
}

// bodyAs is the body as a structure of that request.
func bodyAs[T any](c *call) *T { return (*T)(unsafe.Pointer(&c.body[0])) }

// copyInCall reads a request of the program's: the header at addr, and all that
// it points to. What is wrong with it has the error number that netmap gives.
func copyInCall(addr uint64) (*call, unix.Errno) {
	c := &call{}
	if e := copyIn(bytesOf(&c.header), addr); e != 0 {
		return nil, e
	}
	if c.version < apiLeast || c.version > apiMost || c.reserved != 0 {
		return nil, unix.EINVAL
	}
	size := c.request.bodySize()
	if (size != 0) != (c.header.body != 0) {
		return nil, unix.EINVAL
	}
	c.body = make([]byte, size)
	if e := copyIn(c.body, c.header.body); e != 0 {
		return nil, e
	}
	if e := c.copyOptions(); e != 0 {
		c.copyOut(addr, e)
		return nil, e
	}
	return c, 0
}

// copyOptions follows the list of options. A list that is too long, for example
// because it bites its tail, is EMSGSIZE; so is one whose bodies are.
func (c *call) copyOptions() unix.Errno {
	seen := map[uint32]*optionCopy{}
	// The room that netmap has for everything, pointers and tables included.
	room := requestBytes + optMax*8 - len(c.body)
	total := uint64(len(c.body))
	for addr := c.header.options; addr != 0; {
		if room < 8+optionHeader {
			// Its statuses would be written in a circle.
			c.options = nil
			return unix.EMSGSIZE
		}
		o := &optionCopy{addr: addr}
		if e := copyIn(bytesOf(&o.optionHead), addr); e != 0 {
			return e
		}
		room -= 8 + optionHeader
		total += optionHeader
		o.status = 0
		c.options = append(c.options, o)
		addr = o.next
		if o.kind < 1 {
			o.status = uint32(unix.EINVAL)
			return unix.EINVAL
		}
		if o.kind >= optMax {
			continue
		}
		if twin := seen[o.kind]; twin != nil {
			o.status, twin.status = uint32(unix.EINVAL), uint32(unix.EINVAL)
			return unix.EINVAL
		}
		seen[o.kind] = o
		size := optionSize(o.kind, o.size)
		if size > requestBytes || o.size > requestBytes || total+size > requestBytes || int(size) > room {
			return unix.EMSGSIZE
		}
		total += size
		room -= int(size)
		o.body = make([]byte, size)
		if e := copyIn(o.body, o.addr+optionHeader); e != 0 {
			return e
		}
	}
	for _, o := range c.options {
		o.status = uint32(unix.EOPNOTSUPP) // until somebody understands it
	}
	return 0
}

// leftOver says whether an option was not understood.
func (c *call) leftOver() bool {
	for _, o := range c.options {
		if o.status == uint32(unix.EOPNOTSUPP) {
			return true
		}
	}
	return false
}

// copyOut writes the answer: the body unless the request failed, and what became
// of the options. It returns the error of the whole.
func (c *call) copyOut(addr uint64, failed unix.Errno) unix.Errno {
	if failed == 0 {
		if e := copyOut(c.header.body, c.body); e != 0 {
			return e
		}
	}
	for _, o := range c.options {
		if e := copyOut(o.addr, bytesOf(&o.optionHead)); e != 0 {
			return e
		}
		if failed == 0 && o.status == 0 {
			if e := copyOut(o.addr+optionHeader, o.body); e != 0 {
				return e
			}
		}
	}
	return failed
}
