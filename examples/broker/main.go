// Broker is a small message broker: what is published is in the log of a pool
// before it is acknowledged, in the packet buffers in which it came, and subscribers get
// all of it from any number on, also what was published while they, or the broker, were
// away.
//
//	broker -nic eth0 -listen 10.0.0.1:7070 -pool /dev/shm/broker
//	printf 'PUB 5\nhello' | nc -N 10.0.0.1 7070     # OK 1
//	printf 'SUB 1\n' | nc 10.0.0.1 7070             # MSG 1 5, and the five bytes; more when there is more
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os/signal"
	"sync"
	"syscall"

	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/ringnet"
)

func main() {
	var o pasteapi.Options
	flag.StringVar(&o.NIC, "nic", "", "interface to receive from")
	addr := flag.String("listen", "127.0.0.1:7070", "address to listen on")
	path := flag.String("pool", "/dev/shm/broker", "pool file, made if there is none")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, *addr, *path); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, o pasteapi.Options, addr, path string) (err error) {
	pool, err := pmem.OpenOrCreate(path, pmem.Options{Size: 256 << 20})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	o.Pool = pool
	n, err := ringnet.Open(ctx, o)
	if err != nil {
		return err
	}
	b := &broker{log: pool.Log()}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() { err = errors.Join(err, n.Close()) }() // ends the connections
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // and the subscribers
	l, err := n.Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	log.Printf("listening on %s, %d messages", l.Addr(), pool.Log().Len())
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.AcceptRing()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			in := &input{c: c, pool: pool}
			defer in.close()
			if err := b.serve(ctx, in); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				fmt.Fprintln(c, "ERR", err)
			}
		}()
	}
}

type broker struct {
	log *pmem.Log
	mu  sync.Mutex // of who writes to it
}

// serve does what a connection asks for, line by line.
func (b *broker) serve(ctx context.Context, in *input) error {
	for {
		var verb string
		var n uint64
		line, err := in.line()
		if err != nil {
			return err
		}
		if _, err := fmt.Sscan(line, &verb, &n); err != nil {
			return fmt.Errorf("want PUB LENGTH or SUB NUMBER, not %q", line)
		}
		switch {
		case verb == "PUB" && n <= 1<<20:
			err = b.publish(in, int(n))
		case verb == "SUB":
			return b.subscribe(ctx, in.c, n)
		default:
			err = fmt.Errorf("%s %d: messages are published, up to 1 MiB each, or subscribed to", verb, n)
		}
		if err != nil {
			return err
		}
	}
}

// publish stores the next n bytes, where they lie, and says so.
func (b *broker) publish(in *input, n int) error {
	body, release, err := in.body(n)
	defer release()
	if err != nil {
		return err
	}
	b.mu.Lock()
	seq, err := b.log.Append(body, true) // it takes references of its own
	if err == nil {
		err = b.log.Commit()
	}
	b.mu.Unlock()
	if err == nil {
		_, err = fmt.Fprintln(in.c, "OK", seq)
	}
	return err
}

// subscribe sends all messages from a number on, until the connection or ctx ends.
func (b *broker) subscribe(ctx context.Context, c net.Conn, from uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, c) // it ends with the subscriber
		cancel()
	}()
	w := bufio.NewWriter(c)
	for r, err := range b.log.Follow(ctx, from) {
		if err == nil {
			fmt.Fprintln(w, "MSG", r.Seq, r.Length)
			_, _ = r.WriteTo(w)
			err = w.Flush() // which tells of the others, too
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// input reads a connection by the packet buffer.
type input struct {
	c    *ringnet.Conn
	pool *pmem.Pool
	seg  ringnet.Segment
	rest pmem.Fragment // of seg, not looked at yet
}

// next sees to it that there is something in rest.
func (in *input) next() (err error) {
	for in.rest.Len == 0 && err == nil {
		if in.seg != (ringnet.Segment{}) {
			in.seg.Release()
			in.seg = ringnet.Segment{}
		}
		if in.seg, err = in.c.ReadSegment(); err == nil {
			in.rest = in.seg.Fragment()
		}
	}
	return err
}

// line reads up to the end of a line.
func (in *input) line() (string, error) {
	var line []byte
	for {
		if err := in.next(); err != nil {
			return "", err
		}
		b := in.pool.Frame(in.rest.Frame)[in.rest.Off]
		in.rest.Off, in.rest.Len = in.rest.Off+1, in.rest.Len-1
		if b == '\n' {
			return string(line), nil
		}
		if line = append(line, b); len(line) > 80 {
			return "", errors.New("a line of more than 80 bytes")
		}
	}
}

// body takes the next n bytes, wherever they lie. The frames are the caller's until it
// calls release.
func (in *input) body(n int) (body []pmem.Fragment, release func(), err error) {
	release = func() {
		for _, f := range body {
			in.pool.Unref(f.Frame)
		}
	}
	for n > 0 {
		if err := in.next(); err != nil {
			return body, release, err
		}
		part := in.rest
		part.Len = uint16(min(int(part.Len), n))
		in.rest.Off, in.rest.Len = in.rest.Off+part.Len, in.rest.Len-part.Len
		in.pool.Ref(part.Frame)
		body = append(body, part)
		n -= int(part.Len)
	}
	return body, release, nil
}

func (in *input) close() {
	if in.seg != (ringnet.Segment{}) {
		in.seg.Release()
	}
	in.c.Close()
}
