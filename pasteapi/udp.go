package pasteapi

import (
	"syscall"

	"github.com/pastenet/paste/pasteapi/internal/conns"
	"github.com/pastenet/paste/pasteapi/internal/dgram"
	"github.com/pastenet/paste/pasteapi/internal/frames"
	"golang.org/x/sys/unix"
)

// datagrams are the UDP sockets of a ring.
type datagrams struct {
	in    *dgram.Receiver
	out   *dgram.Sender
	count dgram.Counters
}

func (d *datagrams) make(f *frames.Frames, tx *ringView, w dgram.Watcher) {
	d.in, d.out = dgram.NewReceiver(f, &d.count), dgram.NewSender(f, tx, w, &d.count)
}

func (d *datagrams) remove(s *dgram.Socket) {
	d.in.Remove(s)
	d.out.Drop(s)
}

// handle acts on an event of a socket. room says whether the application still waits
// for some.
func (d *datagrams) handle(s *dgram.Socket, mask uint32, room bool) {
	if mask&unix.EPOLLOUT != 0 {
		d.out.Resume(s)
		_ = d.out.Await(s, room) // a descriptor that was closed shows when it is read
	}
	if mask&unix.EPOLLERR != 0 {
		d.in.Failure(s)
	}
	if mask&unix.EPOLLIN != 0 {
		d.in.Input(s)
	}
	if mask&(unix.EPOLLRDHUP|unix.EPOLLHUP) != 0 {
		d.in.End(s, nil) // this side has shut it down
	}
}

func (d *datagrams) stats() DatagramStats {
	c := &d.count
	return DatagramStats{
		UDPReceived: c.Received, UDPBytes: c.Bytes, UDPTruncated: c.Truncated, UDPErrors: c.Errors,
		UDPSent: c.Sent, UDPSentBytes: c.SentBytes, UDPDropped: c.Dropped,
	}
}

// registerDatagram puts a UDP socket under the ring.
func (r *Ring) registerDatagram(fd int, owner syscall.Conn) error {
	s, err := dgram.Open(fd)
	if err != nil {
		return err
	}
	if err := conns.Claim(s.Cookie); err != nil {
		return err
	}
	c := &conn{owner: owner, dgram: s}
	c.in.Conn = s.Conn
	r.own.Syscalls++
	if err := r.wait.WatchDatagrams(fd); err != nil {
		conns.Release(s.Cookie)
		return err
	}
	r.conns.Put(fd, c)
	r.udp.in.Add(s)
	r.expose()
	return nil
}
