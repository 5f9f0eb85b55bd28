// Echo is a small use of pasteapi: a server that sends back whatever it
// receives, and never copies it. Connections are accepted with the net package
// as in any Go program; then their bytes come and go through rings.
//
//	echo -nic eth0 -listen 10.0.0.1:7777
//	nc 10.0.0.1 7777
//
// Without -nic it works on any interface, by the kernel's ordinary copies.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"os/signal"
	"syscall"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

func main() {
	nic := flag.String("nic", "", "interface to receive from")
	addr := flag.String("listen", "127.0.0.1:7777", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *nic, *addr); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, nic, addr string) error {
	// The pool is the memory that the NIC receives into. This one is anonymous;
	// pmem.OpenOrCreate makes one in a file, and its content survives us.
	pool, err := pmem.NewMemory("echo", pmem.Options{Size: 64 << 20})
	if err != nil {
		return err
	}
	defer pool.Close()
	port, err := pasteapi.Open(ctx, pasteapi.Options{NIC: nic, Pool: pool})
	if err != nil {
		return err
	}
	defer port.Close()

	// Go listens with multipath TCP by default; rings carry plain TCP.
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	if err := port.Steer(uint16(ln.Addr().(*net.TCPAddr).Port)); err != nil {
		ln.Close()
		return err
	}
	log.Print("listening on ", ln.Addr())
	// A ring belongs to one goroutine. This one accepts, and hands connections
	// over through a channel; Wake makes the ring's goroutine look there.
	ctx, cancel := context.WithCancel(ctx)
	ring, accepted, done := port.Ring(0), make(chan *net.TCPConn, 64), make(chan error)
	go func() {
		err := echo(ctx, ring, accepted)
		ln.Close() // ends the loop below
		done <- err
	}()
	defer context.AfterFunc(ctx, ring.Wake)()
	for {
		c, err := ln.Accept()
		if err != nil {
			break
		}
		select {
		case accepted <- c.(*net.TCPConn):
			ring.Wake()
		case <-ctx.Done():
			c.Close()
		}
	}
	cancel()
	return <-done
}

// echo serves the ring until ctx is done.
func echo(ctx context.Context, ring *pasteapi.Ring, accepted <-chan *net.TCPConn) error {
	open := map[int]*net.TCPConn{} // by descriptor, which is how segments name connections
	defer func() {
		for fd, c := range open {
			ring.Unregister(fd)
			c.Close()
		}
	}()
	for ctx.Err() == nil {
		// Poll sends what the last round put into the TX ring, and waits.
		if _, err := ring.Poll(-1); err != nil {
			return err
		}
		for seg := range ring.Segments() {
			if seg.Closed() {
				// The ring closes the connection when its last echo has left.
				delete(open, seg.Fd())
				ring.CloseAfterSend(seg.Fd())
				continue
			}
			// The buffer in which the payload lies is sent.
			err := seg.Forward(seg.Fd())
			if errors.Is(err, pasteapi.ErrTxFull) {
				if err = ring.TxSync(); err == nil {
					err = seg.Forward(seg.Fd())
				}
			}
			if err != nil {
				return err
			}
		}
		// New connections come last, when no segment of a descriptor's former
		// owner is left.
		for n := len(accepted); n > 0; n-- {
			c := <-accepted
			fd, err := ring.RegisterConn(c)
			if err == nil {
				open[fd] = c
				continue
			}
			c.Close()
			if !errors.Is(err, pasteapi.ErrNotConnected) { // reset already
				log.Print(err)
			}
		}
	}
	return nil
}
