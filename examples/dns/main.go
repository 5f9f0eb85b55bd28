// Dns is a small name server over UDP on a ring: every name has the address of whoever
// asks for it.
//
//	dns -listen 127.0.0.1:5353
//	dig @127.0.0.1 -p 5353 anything.example A
//
// One datagram is one segment; its answer leaves from the address that it came to.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os/signal"
	"syscall"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"golang.org/x/net/dns/dnsmessage"
)

func main() {
	addr := flag.String("listen", "127.0.0.1:5353", "address to listen on; 0.0.0.0 and [::] are all of them")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, func(a net.Addr) { log.Print("listening on ", a) }); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends. listening is told the address.
func run(ctx context.Context, addr string, listening func(net.Addr)) error {
	pool, err := pmem.NewMemory("dns", pmem.Options{Size: 32 << 20})
	if err != nil {
		return err
	}
	defer pool.Close()
	port, err := pasteapi.Open(ctx, pasteapi.Options{Pool: pool})
	if err != nil {
		return err
	}
	defer port.Close()
	var lc net.ListenConfig
	socket, err := lc.ListenPacket(ctx, "udp", addr)
	if err != nil {
		return err
	}
	defer socket.Close()
	ring := port.Ring(0)
	if _, err := ring.RegisterConn(socket.(*net.UDPConn)); err != nil {
		return err
	}
	listening(socket.LocalAddr())
	stop := context.AfterFunc(ctx, ring.Wake)
	defer stop()
	var scratch [512]byte
	for ctx.Err() == nil {
		if _, err := ring.Poll(-1); err != nil {
			return err
		}
		for seg := range ring.Segments() {
			if seg.Err() != nil {
				continue // who has asked does not listen any more
			}
			reply, err := answer(scratch[:0], seg.Payload(), seg.Peer().Addr())
			if err != nil {
				log.Printf("%v: %v", seg.Peer(), err)
				continue
			}
			if err = seg.Reply(reply); errors.Is(err, pasteapi.ErrTxFull) {
				if err = ring.TxSync(); err == nil {
					err = seg.Reply(reply)
				}
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// answer appends the answer to a question.
func answer(b, question []byte, from netip.Addr) ([]byte, error) {
	var p dnsmessage.Parser
	h, err := p.Start(question)
	if err != nil {
		return nil, fmt.Errorf("read question: %w", err)
	}
	q, err := p.Question()
	if err != nil {
		return nil, fmt.Errorf("read question: %w", err)
	}
	if h.Response {
		return nil, errors.New("an answer, and no question")
	}
	r := dnsmessage.NewBuilder(b, dnsmessage.Header{ID: h.ID, Response: true, Authoritative: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired})
	r.EnableCompression()
	if err := errors.Join(r.StartQuestions(), r.Question(q), r.StartAnswers()); err != nil {
		return nil, fmt.Errorf("write answer: %w", err)
	}
	head := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class}
	switch {
	case q.Type == dnsmessage.TypeA && from.Is4():
		err = r.AResource(head, dnsmessage.AResource{A: from.As4()})
	case q.Type == dnsmessage.TypeAAAA && from.Is6():
		err = r.AAAAResource(head, dnsmessage.AAAAResource{AAAA: from.As16()})
	}
	if err != nil {
		return nil, fmt.Errorf("write answer: %w", err)
	}
	return r.Finish()
}
