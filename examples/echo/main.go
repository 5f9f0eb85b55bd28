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
	"time"

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
	// Slots name connections by descriptor; the net.TCPConn owns it.
	conns := map[int]*net.TCPConn{}
	ended := map[int]bool{}
	hangUp := func(fd int) {
		ring.Unregister(fd)
		conns[fd].Close()
		delete(conns, fd)
		delete(ended, fd)
	}
	defer func() {
		for fd := range conns {
			hangUp(fd)
		}
	}()
	rx, tx := ring.RX(), ring.TX()
	for ctx.Err() == nil {
		timeout := time.Duration(-1)
		if len(ended) > 0 {
			timeout = 10 * time.Millisecond // then look again at TxQueued
		}
		// Poll sends what the last round put into the TX ring, and waits.
		if _, err := ring.Poll(timeout); err != nil {
			return err
		}
		for fd := range ended { // what they were owed has left with Poll
			if ring.TxQueued(fd) == 0 || ring.CloseCause(fd) != nil {
				hangUp(fd)
			}
		}
		for ; !rx.Empty() && !tx.Empty(); rx.Head, rx.Cur = rx.Next(rx.Head), rx.Next(rx.Head) {
			in, out := rx.Slot(rx.Head), tx.Slot(tx.Head)
			if in.Doff() == int(in.Len) { // no payload: the peer has finished
				ended[in.Fd()] = true
				continue
			}
			// The buffers change places: the received one is sent.
			in.BufIdx, out.BufIdx = out.BufIdx, in.BufIdx
			in.Flags |= pasteapi.NS_BUF_CHANGED
			out.Flags |= pasteapi.NS_BUF_CHANGED
			out.Ptr, out.Len = in.Ptr, in.Len // same connection, same place in the buffer
			tx.Head = tx.Next(tx.Head)
			tx.Cur = tx.Head
		}
		// New connections come last, when no slot of a descriptor's former
		// owner is left.
		for n := len(accepted); n > 0 && rx.Empty(); n-- {
			c := <-accepted
			fd, err := ring.RegisterConn(c)
			if err == nil {
				conns[fd] = c
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
