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
	check(err)
	defer pool.Close()
	port, err := pasteapi.Open(context.Background(), pasteapi.Options{NIC: "eth0", Pool: pool})
	check(err)
	defer port.Close()

	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // rings carry plain TCP
	ln, err := lc.Listen(context.Background(), "tcp", ":7777")
	check(err)
	check(port.Steer(7777))
	conn, err := ln.Accept()
	check(err)

	ring := port.Ring(0)
	fd, err := ring.RegisterConn(conn.(*net.TCPConn))
	check(err)
	for open := true; open; {
		_, err := ring.Poll(-1) // a batch of segments
		check(err)
		for seg := range ring.Segments() {
			if seg.Closed() {
				open = false
				continue
			}
			frag, err := seg.Keep() // out of the ring, a free buffer takes its place
			check(err)
			// The log takes a reference of its own, and flushes the payload where it lies.
			_, err = pool.Log().Append([]pmem.Fragment{frag}, true)
			check(err)
			pool.Unref(frag.Frame)
		}
		check(pool.Log().Commit()) // durable, the whole batch at once
	}
	check(ring.Unregister(fd))
	check(conn.Close())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
