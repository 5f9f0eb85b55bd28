package netmapdev

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/netmap"
	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// Ioctl is ioctl(2) of the file. It returns 0 or the error number that netmap has
// for it. arg is an address of the program's.
func (f *File) Ioctl(cmd uint64, arg uint64) unix.Errno {
	switch uint32(cmd) {
	case uint32(NIOCTXSYNC):
		return errnoOf(f.Sync(true))
	case uint32(NIOCRXSYNC):
		return errnoOf(f.Sync(false))
	case uint32(NIOCCTRL):
		c, e := copyInCall(arg)
		if e != 0 {
			return e
		}
		e = c.copyOut(arg, f.control(c))
		if e == 0 && c.request == reqValeList {
			e = c.copyOutName(arg)
		}
		return e
	case uint32(NIOCREGIF), uint32(NIOCGINFO):
		return f.legacy(uint32(cmd), arg)
	}
	return unix.EOPNOTSUPP
}

// control does a request, and tells the log what an error number cannot tell.
func (f *File) control(c *call) unix.Errno {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	err := f.do(c)
	errno := errnoOf(err)
	switch errno {
	case 0, unix.EBUSY, unix.EINVAL, unix.ENXIO, unix.ENOENT:
		if err != nil {
			f.d.opts.Logger.Debug("netmap request refused", "request", c.request.String(), "port", c.portName(), "err", err)
		}
	default:
		f.d.opts.Logger.Error("netmap request refused", "request", c.request.String(), "port", c.portName(), "err", err)
	}
	return errno
}

func (f *File) do(c *call) error {
	switch c.request {
	case reqRegister:
		return f.register(c)
	case reqPortInfo:
		return f.portInfo(c)
	case reqPoolsInfo:
		return f.poolsInfo(c)
	case reqPSTAttach, reqPSTDetach:
		return f.pstNIC(c)
	case reqPSTFdReg:
		return f.pstSocket(c)
	case reqCSBEnable:
		if c.option(optCSB) == nil {
			return fmt.Errorf("no NETMAP_REQ_OPT_CSB: %w", unix.EINVAL)
		}
		return refuse("CSB is not here: head and cur in the ring are all there is")
	case reqKloopStart, reqKloopStop:
		if f.binding() == nil {
			return fmt.Errorf("the file is bound to no port: %w", unix.ENXIO)
		}
		return refuse("the kernel loop is not here: sync the rings from a thread")
	case reqValeAttach, reqValeDetach:
		return f.switchPort(c)
	case reqValeList:
		return f.switchList(c)
	case reqValeNewif, reqValeDelif:
		return refuse("ports of switches go with their program; a veth stays")
	case reqPollingEnable, reqPollingDisable:
		return refuse("a switch's thread is not to be placed")
	case reqHdrSet, reqHdrGet:
		return f.header(c)
	}
	return unix.EINVAL
}

// header is NETMAP_REQ_PORT_HDR_SET and GET. Frames have no virtio-net headers here, and
// netmap itself gives them to ports of switches alone.
func (f *File) header(c *call) error {
	name, length := c.portName(), at[uint32](c.body)
	if strings.HasPrefix(name, "vale") && !slices.Contains(netmap.ValeList(), name) {
		return fmt.Errorf("%s: there is no such port: %w", name, unix.ENXIO)
	}
	if c.request == reqHdrGet {
		*length = 0
		return kindOf(name).describe(f.d, name, &register{mode: modeAllNIC})
	}
	switch {
	case *length != 0 && *length != 10 && *length != 12:
		return fmt.Errorf("a header of %d bytes: %w", *length, unix.EINVAL)
	case !strings.HasPrefix(name, "vale"):
		return fmt.Errorf("%s is not a port of a switch: %w", name, unix.ENXIO)
	case *length == 0:
		return nil
	}
	return refuse("virtio-net headers are not here")
}

// refuse is the error of something that is understood and not to be had.
func refuse(why string) error { return fmt.Errorf("%s: %w", why, unix.EOPNOTSUPP) }

// errnoOf is the number that a C program gets for an error.
func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	for _, known := range []struct {
		err   error
		errno unix.Errno
	}{
		{nil, 0},
		{pasteapi.ErrNotSocket, unix.EINVAL},
		{pasteapi.ErrNotConnected, unix.EINVAL},
		{pasteapi.ErrRegistered, unix.EBUSY},
		{pasteapi.ErrTooManyConns, unix.ENOMEM},
		{pasteapi.ErrNoBuffers, unix.ENOMEM},
		{pasteapi.ErrNICInUse, unix.EBUSY},
		{netmap.ErrBusy, unix.EBUSY},
		{netmap.ErrNoMemory, unix.ENOMEM},
		{bpf.ErrNoSuchNIC, unix.ENXIO},
		{bpf.ErrNoPrivilege, unix.EPERM},
		{errors.ErrUnsupported, unix.EOPNOTSUPP},
	} {
		if known.err == nil && err == nil || known.err != nil && errors.Is(err, known.err) {
			return known.errno
		}
	}
	if errors.As(err, &errno) {
		return errno
	}
	return unix.EIO
}
