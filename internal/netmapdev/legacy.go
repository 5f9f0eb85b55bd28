package netmapdev

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"
)

// Commands and ring numbers of struct nmreq.
const (
	cmdAttach = 1

	ringMask    = 0x0fff
	ringNoTX    = 0x1000
	ringSW      = 0x2000
	ringHW      = 0x4000
	ringDoRX    = 0x8000
	regModeMask = 0xf
)

// legacyRequests are what nr_cmd of NIOCREGIF stands for.
var legacyRequests = map[uint16]request{
	0: reqRegister, cmdAttach: reqValeAttach, 2: reqValeDetach, 5: reqHdrSet, 6: reqValeNewif, 7: reqValeDelif,
	10: reqPollingEnable, 11: reqPollingDisable, 12: reqHdrGet,
}

// legacy is NIOCREGIF and NIOCGINFO: requests of before NIOCCTRL, which are
// translated into those of today.
func (f *File) legacy(cmd uint32, addr uint64) unix.Errno {
	l := &legacy{}
	if e := copyIn(bytesOf(l), addr); e != 0 {
		return e
	}
	if l.version < apiLeast {
		return unix.EINVAL
	}
	l.name[len(l.name)-1] = 0
	c := &call{header: header{version: apiLeast}}
	copy(c.name[:], l.name[:])
	if cmd == uint32(NIOCGINFO) {
		c.request = reqPortInfo
		if l.cmd == 4 {
			c.request = reqValeList
		}
	} else if req, ok := legacyRequests[l.cmd]; ok {
		c.request = req
	} else {
		return unix.EINVAL // ptnetmap, and the hooks of kernel modules
	}
	c.body = make([]byte, max(c.request.bodySize(), 1))
	var e unix.Errno
	switch c.request {
	case reqRegister:
		e = f.legacyRegister(l, c)
	case reqPortInfo:
		*bodyAs[portInfo](c) = portInfo{txSlots: l.txSlots, rxSlots: l.rxSlots, txRings: l.txRings, rxRings: l.rxRings, memID: l.arg2}
		if e = f.control(c); e == 0 {
			info := bodyAs[portInfo](c)
			l.memSize, l.arg2 = uint32(info.memSize), info.memID
			l.txSlots, l.rxSlots, l.txRings, l.rxRings = info.txSlots, info.rxSlots, info.txRings, info.rxRings
		}
	case reqHdrGet, reqHdrSet:
		*at[uint32](c.body) = uint32(l.arg1)
		e = f.control(c)
		l.arg1 = uint16(*at[uint32](c.body))
	default:
		e = f.control(c)
	}
	if e != 0 {
		return e
	}
	return copyOut(addr, bytesOf(l))
}

func (f *File) legacyRegister(l *legacy, c *call) unix.Errno {
	req := bodyAs[register](c)
	*req = register{txSlots: l.txSlots, rxSlots: l.rxSlots, txRings: l.txRings, rxRings: l.rxRings, memID: l.arg2,
		ringID: l.ringID & ringMask, mode: l.flags & regModeMask, extraBufs: l.arg3, flags: uint64(l.flags &^ regModeMask)}
	switch {
	case req.mode != 0:
	case l.ringID&ringSW != 0:
		req.mode = modeSW
	case l.ringID&ringHW != 0:
		req.mode = modeOneNIC
	default:
		req.mode = modeAllNIC
	}
	if req.mode == modePipeMaster || req.mode == modePipeSlave {
		end := bytes.IndexByte(c.name[:], 0)
		suffix := fmt.Sprintf("%c%d", "{}"[req.mode-modePipeMaster], req.ringID)
		if end+len(suffix) >= len(c.name) {
			return unix.ENOBUFS
		}
		copy(c.name[end:], suffix)
		req.mode, req.ringID = modeAllNIC, 0
	}
	if l.ringID&ringNoTX != 0 {
		req.flags |= flagNoTXPoll
	}
	if l.ringID&ringDoRX != 0 {
		req.flags |= flagDoRXPoll
	}
	if e := f.control(c); e != 0 {
		return e
	}
	if req.offset != uint64(uint32(req.offset)) || req.memSize != uint64(uint32(req.memSize)) {
		// The old request has 32 bits for both.
		f.d.mu.Lock()
		defer f.d.mu.Unlock()
		return errnoOf(fmt.Errorf("a memory of %d bytes is too large for NIOCREGIF: %w: %w", req.memSize, unix.EOVERFLOW, f.unbind()))
	}
	l.offset, l.memSize = uint32(req.offset), uint32(req.memSize)
	l.txSlots, l.rxSlots, l.txRings, l.rxRings = req.txSlots, req.rxSlots, req.txRings, req.rxRings
	l.arg2, l.arg3 = req.memID, req.extraBufs
	return 0
}
