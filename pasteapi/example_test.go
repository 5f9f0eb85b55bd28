package pasteapi_test

import (
	"context"
	"log"
	"net"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// A server for one connection that keeps everything it receives in the log of
// a pool file, in the buffers that the NIC put it in.
func Example() {
	pool, err := pmem.OpenOrCreate("/dev/shm/x.pool", pmem.Options{Size: 256 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	port, err := pasteapi.Open(context.Background(), pasteapi.Options{NIC: "eth0", Pool: pool})
	if err != nil {
		log.Fatal(err)
	}
	defer port.Close()

	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // rings carry plain TCP
	ln, err := lc.Listen(context.Background(), "tcp", ":7777")
	if err != nil {
		log.Fatal(err)
	}
	if err := port.Steer(7777); err != nil {
		log.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		log.Fatal(err)
	}
	ring := port.Ring(0)
	fd, err := ring.RegisterConn(conn.(*net.TCPConn))
	if err != nil {
		log.Fatal(err)
	}

	rx, open := ring.RX(), true
	for open {
		if _, err := ring.Poll(-1); err != nil { // a batch of segments
			log.Fatal(err)
		}
		for ; !rx.Empty(); rx.Head, rx.Cur = rx.Next(rx.Head), rx.Next(rx.Head) {
			slot := rx.Slot(rx.Head)
			off, n := uint16(slot.Doff()), slot.Len-uint16(slot.Doff())
			if n == 0 { // close notice
				open = false
				continue
			}
			frame, err := ring.Keep(slot) // out of the ring, a free one takes its place
			if err != nil {
				log.Fatal(err)
			}
			// The log takes a reference of its own, and flushes the payload where it lies.
			if _, err := pool.Log().Append([]pmem.Fragment{{Frame: frame, Off: off, Len: n}}, true); err != nil {
				log.Fatal(err)
			}
			pool.Unref(frame)
		}
		if err := pool.Log().Commit(); err != nil { // durable, the whole batch at once
			log.Fatal(err)
		}
	}
	if err := ring.Unregister(fd); err != nil {
		log.Fatal(err)
	}
	conn.Close()
}
