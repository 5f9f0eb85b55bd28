package netmap

import (
	"errors"
	"fmt"
	"sync"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/xsk"
	"golang.org/x/sys/unix"
)

// device is a NIC that this process has ports on. Ports share it: each has other
// queues, or another direction of a queue, or the host's rings.
type device struct {
	key  deviceKey
	nic  bpf.NICInfo
	refs int
	mode bpf.XDPMode

	raw    *bpf.Raw // while a queue receives
	queues map[int]*queue
	host   *host // while a port has the host's rings
}

// deviceKey names a NIC: an index is one only within its network namespace.
type deviceKey struct {
	netns   uint64
	ifindex int
}

// devices are all of them. The lock is held while ports open and close, never while
// they sync.
var devices struct {
	sync.Mutex
	open map[deviceKey]*device
}

func currentNetns() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("look at the network namespace: %w", err)
	}
	return st.Ino, nil
}

// openDevice finds a NIC, or takes it. The caller holds devices' lock.
func openDevice(name string, mode bpf.XDPMode) (*device, error) {
	nic, err := bpf.LookupNIC(name)
	if err != nil {
		return nil, err
	}
	ns, err := currentNetns()
	if err != nil {
		return nil, err
	}
	key := deviceKey{ns, nic.Ifindex}
	d := devices.open[key]
	if d == nil {
		d = &device{key: key, nic: nic, mode: mode, queues: map[int]*queue{}}
		if devices.open == nil {
			devices.open = map[deviceKey]*device{}
		}
		devices.open[key] = d
	}
	d.refs++
	return d, nil
}

// close ends one use. The caller holds devices' lock.
func (d *device) close() (err error) {
	if d.refs--; d.refs > 0 {
		return nil
	}
	delete(devices.open, d.key)
	if d.raw != nil {
		err = d.raw.Close()
	}
	return err
}

// queue is a queue of a NIC with its AF_XDP socket, which at most one port receives
// by and one sends by.
type queue struct {
	dev    *device
	id     int
	mem    *Memory
	owner  uint32 // of the buffers with the kernel and in slots
	sock   *xsk.Socket
	unhold func() error // ends the claim on it
	rx, tx bool         // somebody has it
	posted int          // buffers in the fill ring or on their way from it
}

// claim takes directions of a queue for a port, and opens its socket if it is the
// first. The caller holds devices' lock.
func (d *device) claim(id int, m *Memory, o *openOptions, rx, tx bool) (_ *queue, err error) {
	q := d.queues[id]
	switch {
	case q == nil:
		if q, err = d.openQueue(id, m, o); err != nil {
			return nil, err
		}
		d.queues[id] = q
	case rx && q.rx || tx && q.tx:
		return nil, fmt.Errorf("queue %d of %s: %w by another port of this process; open its other direction (/R, /T) or another queue (-N)", id, d.nic.Name, ErrBusy)
	case q.mem != m:
		return nil, fmt.Errorf("queue %d of %s: %w by a port with another memory; both directions of a queue have one", id, d.nic.Name, ErrBusy)
	}
	q.rx, q.tx = q.rx || rx, q.tx || tx
	return q, nil
}

// openQueue opens a socket: zero-copy if the driver has it, and with frames in
// several buffers if it can do that too.
func (d *device) openQueue(id int, m *Memory, o *openOptions) (_ *queue, err error) {
	xo := xsk.Options{
		Ifindex: d.nic.Ifindex, Queue: id, Mode: o.bind, NeedWakeup: true, MultiBuffer: true,
		RxSize: powerOfTwo(o.rxSlots), TxSize: powerOfTwo(o.txSlots), TxBudget: powerOfTwo(o.txSlots),
	}
	xo.FillSize, xo.CompSize = xo.RxSize, xo.TxSize
	unhold, taken, err := claimQueue(d.nic.Ifindex, id)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unhold())
		}
	}()
	xo.NoWait = taken
	try := []xsk.Options{xo}
	if zc, err := xsk.ZeroCopyCapable(d.nic.Ifindex); o.bind != xsk.Copy && (zc || err != nil) {
		// The way that the driver can do without copying comes before the one of
		// several buffers.
		sg, plain := xo, xo
		sg.Mode, plain.Mode, plain.MultiBuffer = xsk.ZeroCopy, xsk.ZeroCopy, false
		try = []xsk.Options{sg, plain}
		if o.bind == xsk.Auto {
			copied := xo
			copied.Mode = xsk.Copy
			try = append(try, copied)
		}
	}
	var s *xsk.Socket
	for _, xo := range try {
		if s, err = xsk.Open(m.umem, xo); !errors.Is(err, xsk.ErrNotSupported) {
			break
		}
	}
	if errors.Is(err, xsk.ErrBusy) {
		err = fmt.Errorf("%w: %w", ErrBusy, err)
	}
	if err != nil {
		return nil, err
	}
	// In copy mode a frame counts against the socket until the device has freed it.
	// Without the privilege the limit of all sockets stays.
	_ = unix.SetsockoptInt(s.Fd(), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 16<<20)
	return &queue{dev: d, id: id, mem: m, owner: m.newOwner(), sock: s, unhold: unhold}, nil
}

// receive posts buffers and has the NIC's frames come here.
func (q *queue) receive(slots int) error {
	d := q.dev
	if need := slots - q.posted; need > 0 {
		bufs := make([]uint32, need)
		if n := q.mem.take(bufs, q.owner); n < need {
			q.mem.give(bufs[:n], q.owner)
			return noBuffers(q.mem, need, n)
		}
		q.posted += q.sock.FillFrames(bufs)
	}
	if d.raw == nil {
		raw, err := bpf.AttachRaw(d.nic.Name, d.nic.Queues, d.mode)
		if err != nil {
			return err
		}
		d.raw = raw
	}
	return d.raw.SetSocket(q.id, q.sock.Fd())
}

// release gives directions back. The caller holds devices' lock.
func (q *queue) release(rx, tx bool) error {
	var errs []error
	d := q.dev
	if rx && q.rx {
		q.rx = false
		if d.raw != nil {
			errs = append(errs, d.raw.ClearSocket(q.id))
		}
	}
	if tx {
		q.tx = false
	}
	if !d.receives() && d.raw != nil {
		errs = append(errs, d.raw.Close())
		d.raw = nil
	}
	if !q.rx && !q.tx {
		delete(d.queues, q.id)
		errs = append(errs, q.sock.Close(), q.unhold())
		q.mem.giveAll(q.owner)
	}
	return errors.Join(errs...)
}

func (d *device) receives() bool {
	for _, q := range d.queues {
		if q.rx {
			return true
		}
	}
	return false
}

func powerOfTwo(n int) int {
	p := 64
	for p < n {
		p *= 2
	}
	return p
}
