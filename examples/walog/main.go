// Walog keeps messages in a write-ahead log, in the buffers in which the
// network interface put them. A message is four bytes of length, big endian,
// and that many bytes; the answer is its number in the log, eight bytes, and
// is sent when the message is durable.
//
//	walog -nic eth0 -port 7778 -pool /dev/shm/walog
//	printf '\0\0\0\5hello' | nc -q1 10.0.0.1 7778 | xxd
//	pastectl pool log /dev/shm/walog
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"log"

	"golang.org/x/sys/unix"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

func main() {
	nic := flag.String("nic", "", "interface to receive from")
	number := flag.Int("port", 7778, "TCP port to listen on")
	path := flag.String("pool", "/dev/shm/walog", "pool file, made if there is none")
	flag.Parse()
	pool, err := pmem.OpenOrCreate(*path, pmem.Options{Size: 256 << 20})
	check(err)
	port, err := pasteapi.Open(context.Background(), pasteapi.Options{NIC: *nic, Pool: pool})
	check(err)
	// A socket without Go's poller: the ring watches it.
	ln, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	check(err)
	w := &walog{pool: pool, ring: port.Ring(0), conns: map[int]*conn{}}
	check(errors.Join(unix.SetsockoptInt(ln, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(ln, &unix.SockaddrInet4{Port: *number}), unix.Listen(ln, 128),
		w.ring.Watch(ln), port.Steer(uint16(*number))))
	log.Printf("listening on port %d, %d messages in the log", *number, pool.Log().Len())
	for { // until it is killed: there is nothing to tidy up
		w.round()
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

type walog struct {
	pool  *pmem.Pool
	ring  *pasteapi.Ring
	conns map[int]*conn // by descriptor
}

// conn is a connection with the message that it is sending.
type conn struct {
	header int             // how many bytes of the length we have
	need   int             // bytes that the message still lacks
	frags  []pmem.Fragment // where the rest of it lies
}

// round is one turn: receive a batch, append, commit, answer.
func (w *walog) round() {
	// This sends the answers of the turn before, whose messages were committed.
	_, err := w.ring.Poll(-1)
	check(err)
	for seg := range w.ring.Segments() {
		c := w.conns[seg.Fd()]
		if c != nil && (seg.Closed() || w.segment(c, seg) != nil) {
			w.forget(c)
			delete(w.conns, seg.Fd())
			w.ring.CloseAfterSend(seg.Fd()) // answers still leave; the descriptor is the ring's now
		}
	}
	for _, ln := range w.ring.Ready() {
		fd, _, err := unix.Accept4(ln, unix.SOCK_CLOEXEC)
		if err == nil && w.ring.Register(fd) == nil {
			w.conns[fd] = &conn{}
		} else if err == nil {
			unix.Close(fd)
		}
	}
	// One commit makes all messages of the turn durable, whoever sent them.
	check(w.pool.Log().Commit())
}

// segment takes a payload apart. An error is a reason to hang up.
func (w *walog) segment(c *conn, seg pasteapi.Segment) error {
	rest := seg.Payload()
	// The buffer becomes ours, and the NIC gets another one for it.
	kept, err := seg.Keep()
	if err != nil {
		return err
	}
	defer w.pool.Unref(kept.Frame)
	for len(rest) > 0 {
		if c.header < 4 {
			c.header, c.need = c.header+1, c.need<<8|int(rest[0])
			rest = rest[1:]
		}
		if c.need > 1<<20 {
			return errors.New("message is too long")
		}
		if n := min(c.need, len(rest)); c.header == 4 && n > 0 {
			w.pool.Ref(kept.Frame) // until the end of the message is here, too
			off := kept.Off + kept.Len - uint16(len(rest))
			c.frags = append(c.frags, pmem.Fragment{Frame: kept.Frame, Off: off, Len: uint16(n)})
			rest, c.need = rest[n:], c.need-n
		}
		if c.header == 4 && c.need == 0 {
			seq, err := w.pool.Log().Append(c.frags, true) // takes references of its own
			w.forget(c)
			if err != nil {
				return err
			}
			w.answer(seg, seq)
		}
	}
	return nil
}

// answer sends a number, in the next turn. A full ring is sent before its time,
// and the log is committed before that.
func (w *walog) answer(seg pasteapi.Segment, seq uint64) {
	b := binary.BigEndian.AppendUint64(nil, seq)
	err := seg.Reply(b)
	if errors.Is(err, pasteapi.ErrTxFull) {
		check(w.pool.Log().Commit())
		check(w.ring.TxSync())
		err = seg.Reply(b)
	}
	check(err)
}

// forget gives up the message in progress; what the log has keeps its frames.
func (w *walog) forget(c *conn) {
	for _, f := range c.frags {
		w.pool.Unref(f.Frame)
	}
	c.header, c.need, c.frags = 0, 0, c.frags[:0]
}
