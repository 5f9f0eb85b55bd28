package bpf

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Status of a claim ticket, the low two bits of TicketEntry.State. The rest is
// the ticket's generation.
const (
	TicketFree      = uint32(ticketTicketStatusTICKET_FREE)
	TicketInFlight  = uint32(ticketTicketStatusTICKET_IN_FLIGHT)
	TicketDelivered = uint32(ticketTicketStatusTICKET_DELIVERED)
)

// DeliveryFin says that the peer's FIN came with the delivered bytes, or alone.
// DeliveryData says that the bytes stand behind the record.
const (
	DeliveryFin  = uint32(ticketDeliveryFlagDELIVERY_FIN)
	DeliveryData = uint32(ticketDeliveryFlagDELIVERY_DATA)
)

// TicketEntry is one row of the ticket table that user space and the verdict
// program share (struct ticket in ticket.bpf.c): the socket's SO_COOKIE, the
// sequence number of the payload's first byte, its length in bytes, and State,
// which is generation<<2 | status. Fields other than State are written by user
// space while the ticket is free; State changes by compare-and-exchange only.
type TicketEntry ticketTicket

// DeliveryMax is the most bytes that are copied into a delivery.
const DeliveryMax = int(ticketDeliveryLimitCOPY_MAX)

// Delivery says what TCP accepted, in order for each socket: either the bytes
// of a ticket (the frame is user space's) or bytes without one (Ticket is 0), which
// stand behind the record (DeliveryData) or wait in the socket for recv.
// Ticket is slot | generation<<16, Seq the sequence number of the first byte,
// Consumed the socket's copied_seq before this delivery (struct delivery in
// ticket.bpf.c).
type Delivery ticketDelivery

// TicketOptions sizes the tables of a Ticket.
type TicketOptions struct {
	Tickets  int // rows of the ticket table including row 0, a power of two up to 65536; 0 = 8192
	MaxConns int // sockets; 0 = 65536
}

// Ticket is the loaded pair of programs behind the claim tickets of one ring:
// the tagger and the verdict, with their maps mapped into this process.
//
// The table, the control words and the reading side of the delivery ring
// belong to one goroutine at a time; the socket calls may be made from any.
type Ticket struct {
	objs    ticketObjects
	table   []TicketEntry
	ctl     *ticketControl
	ring    ringReader
	maps    [][]byte
	tag     link.Link
	verdict link.Link
}

// LoadTicket loads the programs and attaches the verdict to its socket map.
// The tagger waits for AttachTag.
func LoadTicket(o TicketOptions) (_ *Ticket, err error) {
	spec, err := loadTicket()
	if err != nil {
		return nil, fmt.Errorf("load ticket programs: %w", err)
	}
	tickets := o.Tickets
	if tickets == 0 {
		tickets = 8192
	}
	if tickets < 2 || tickets > 1<<16 || tickets&(tickets-1) != 0 {
		return nil, fmt.Errorf("load ticket programs: %d tickets: need a power of two from 2 to 65536", tickets)
	}
	spec.Maps[ticketMapTicketTable].MaxEntries = uint32(tickets)
	// A ticket's record takes 48 bytes, one with data up to DeliveryMax more.
	ringSize := max(tickets*512, os.Getpagesize())
	spec.Maps[ticketMapTicketDeliveries].MaxEntries = uint32(ringSize)
	if o.MaxConns > 0 {
		spec.Maps[ticketMapTicketSockets].MaxEntries = uint32(o.MaxConns)
		spec.Maps[ticketMapTicketPassed].MaxEntries = uint32(o.MaxConns)
		spec.Maps[ticketMapTicketStopped].MaxEntries = uint32(o.MaxConns)
	}

	t := &Ticket{}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	if err := spec.LoadAndAssign(&t.objs, nil); err != nil {
		return nil, fmt.Errorf("load ticket programs: %w", err)
	}
	if err := t.mapTables(tickets, ringSize); err != nil {
		return nil, err
	}
	if err := t.attachVerdict(); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Ticket) mmap(m *ebpf.Map, offset int64, length, prot int) ([]byte, error) {
	b, err := unix.Mmap(m.FD(), offset, length, prot, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", m.String(), err)
	}
	t.maps = append(t.maps, b)
	return b, nil
}

func (t *Ticket) mapTables(tickets, ringSize int) error {
	page := os.Getpagesize()
	size := tickets * int(unsafe.Sizeof(TicketEntry{}))
	size = (size + page - 1) &^ (page - 1)
	b, err := t.mmap(t.objs.TicketTable, 0, size, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return err
	}
	t.table = unsafe.Slice((*TicketEntry)(unsafe.Pointer(&b[0])), tickets)

	b, err = t.mmap(t.objs.TicketControl, 0, page, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return err
	}
	t.ctl = (*ticketControl)(unsafe.Pointer(&b[0]))

	// kernel/bpf/ringbuf.c: consumer page, producer page, data pages twice.
	cons, err := t.mmap(t.objs.TicketDeliveries, 0, page, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return err
	}
	prod, err := t.mmap(t.objs.TicketDeliveries, int64(page), page+2*ringSize, unix.PROT_READ)
	if err != nil {
		return err
	}
	t.ring = newRingReader(cons, prod, page, ringSize)
	return nil
}

// attachVerdict uses a link where the kernel has them for socket maps (6.10)
// and the older attachment, which ends with the map, where it has not.
func (t *Ticket) attachVerdict() error {
	l, err := link.AttachRawLink(link.RawLinkOptions{
		Target:  t.objs.TicketSockets.FD(),
		Program: t.objs.PasteVerdict,
		Attach:  ebpf.AttachSkSKBStreamVerdict,
	})
	if err == nil {
		t.verdict = l
		return nil
	}
	rawErr := link.RawAttachProgram(link.RawAttachProgramOptions{
		Target:  t.objs.TicketSockets.FD(),
		Program: t.objs.PasteVerdict,
		Attach:  ebpf.AttachSkSKBStreamVerdict,
	})
	if rawErr != nil {
		return fmt.Errorf("attach verdict program to socket map: %w", errors.Join(err, rawErr))
	}
	return nil
}

// AttachTag puts the tagger on the ingress of an interface of the calling
// thread's network namespace. It stays until Close, or the next AttachTag.
func (t *Ticket) AttachTag(ifindex int) error {
	if t.tag != nil {
		err := t.tag.Close()
		if t.tag = nil; err != nil {
			return fmt.Errorf("take tagger from its interface: %w", err)
		}
	}
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: ifindex,
		Program:   t.objs.PasteTag,
		Attach:    ebpf.AttachTCXIngress,
	})
	if err != nil {
		return fmt.Errorf("attach tagger to ingress of interface %d (needs TCX, Linux 6.6): %w", ifindex, err)
	}
	t.tag = l
	return nil
}

// InjectOn has injected packets come in on an interface, at whose ingress an
// Ingress is, or, with 0, on the injection device itself. What is written to the
// injection device must be addressed accordingly.
func (t *Ticket) InjectOn(ifindex int) { atomic.StoreUint32(&t.ctl.Nic, uint32(ifindex)) }

// Table returns the ticket table. Row 0 is never used.
func (t *Ticket) Table() []TicketEntry { return t.table }

// AddSocket puts a connected TCP socket under the verdict.
func (t *Ticket) AddSocket(cookie uint64, fd int) error {
	v := uint64(fd)
	if err := t.objs.TicketSockets.Update(&cookie, &v, ebpf.UpdateNoExist); err != nil {
		return fmt.Errorf("add socket to map: %w", err)
	}
	return nil
}

// RemoveSocket takes a socket out again, with all that is known of it. A closed
// socket leaves the map by itself, so an unknown cookie is not an error.
func (t *Ticket) RemoveSocket(cookie uint64) error {
	err := t.objs.TicketSockets.Delete(&cookie)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("remove socket from map: %w", err)
	}
	return errors.Join(err, t.forget(cookie), t.forgetStopped(cookie))
}

// Next returns the next delivery, or nil when there is none. It is valid until
// Release.
func (t *Ticket) Next() *Delivery { return (*Delivery)(t.ring.next()) }

// Data is the bytes behind a delivery with DeliveryData, in the ring.
func (d *Delivery) Data() []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(d), unsafe.Sizeof(*d))), d.Len)
}

// Release gives the space of the deliveries read so far back to the kernel.
func (t *Ticket) Release() { t.ring.release() }

// Pending says whether a delivery may be waiting.
func (t *Ticket) Pending() bool { return t.ring.pending() }

// PollFd is a descriptor that polls readable when there are deliveries.
func (t *Ticket) PollFd() int { return t.objs.TicketDeliveries.FD() }

// Sleeping tells the verdict whether the reader sleeps and must be woken. Look
// at Pending once more between Sleeping(true) and going to sleep.
func (t *Ticket) Sleeping(yes bool) {
	v := uint32(0)
	if yes {
		v = 1
	}
	// The exchange is a full barrier, see paste_verdict.
	atomic.SwapUint32(&t.ctl.Sleeping, v)
}

// Overflows counts how often a delivery was not written because the ring was
// full. It only grows.
func (t *Ticket) Overflows() uint32 { return atomic.LoadUint32(&t.ctl.Overflows) }

// Overflow says what the verdict knows of a socket whose deliveries went
// missing: the sequence number of the First byte without a delivery, that of the
// Next byte to come, and how many skbs repeat bytes that had come before and
// could not be cut (struct passed in ticket.bpf.c).
type Overflow ticketPassed

// Lost lists the sockets whose deliveries went missing. It looks at the few of which
// bytes wait, and not at every socket.
func (t *Ticket) Lost() (cookies []uint64, err error) {
	var cookie uint64
	var o Overflow
	it := t.objs.TicketPassed.Iterate()
	for it.Next(&cookie, &o) {
		if o.Lost != 0 {
			cookies = append(cookies, cookie)
		}
	}
	if err := it.Err(); err != nil {
		return cookies, fmt.Errorf("list overflowed sockets: %w", err)
	}
	return cookies, nil
}

// Overflowed says whether deliveries of a socket went missing. All bytes of
// such a socket stay in the kernel from then on.
func (t *Ticket) Overflowed(cookie uint64) (o Overflow, yes bool) {
	err := t.objs.TicketPassed.Lookup(&cookie, &o)
	return o, err == nil && o.Lost != 0
}

// forget removes what the verdict knows of a socket with bytes that wait for recv.
func (t *Ticket) forget(cookie uint64) error {
	if atomic.LoadUint32(&t.ctl.Passing) == 0 {
		return nil
	}
	err := t.objs.TicketPassed.Delete(&cookie)
	switch {
	case err == nil:
		atomic.AddUint32(&t.ctl.Passing, ^uint32(0))
	case !errors.Is(err, ebpf.ErrKeyNotExist):
		return fmt.Errorf("forget what waits in a socket: %w", err)
	}
	return nil
}

// Counters returns the verdict's counters, summed over the CPUs.
func (t *Ticket) Counters() (map[string]uint64, error) {
	return readCounters(t.objs.TicketStats, ticketCounters[:])
}

// Close detaches the programs and unmaps the tables. It may be called twice.
func (t *Ticket) Close() error {
	var errs []error
	if t.tag != nil {
		errs = append(errs, t.tag.Close())
		t.tag = nil
	}
	if t.verdict != nil {
		errs = append(errs, t.verdict.Close())
		t.verdict = nil
	}
	for _, b := range t.maps {
		errs = append(errs, unix.Munmap(b))
	}
	t.maps, t.table, t.ctl, t.ring = nil, nil, nil, ringReader{}
	if t.objs.PasteTag != nil {
		errs = append(errs, t.objs.Close())
		t.objs = ticketObjects{}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close ticket programs: %w", err)
	}
	return nil
}
