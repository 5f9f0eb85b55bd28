package loadgen

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// batch is what a connection sends at once, and what is to come for it.
type batch struct {
	mem      []byte
	ops      []uint8
	answered int
}

// buildPipelines makes room for requests that are sent together.
func (g *generator) buildPipelines() (err error) {
	n := g.KV.Pipeline
	if n <= 1 || g.KV.Preload {
		return nil
	}
	longest := max(len(g.conns[0].get.b), len(g.conns[0].put.b))
	size := n * longest
	if size > (1<<30)/g.Connections {
		return fmt.Errorf("load generator: %d connections with %d values of %d bytes at once need more than 1 GiB", g.Connections, n, g.Size)
	}
	g.batches, err = unix.Mmap(-1, 0, size*g.Connections, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("load generator: map %d bytes for requests: %w", size*g.Connections, err)
	}
	for i := range g.conns {
		g.conns[i].batch = &batch{mem: g.batches[i*size : (i+1)*size : (i+1)*size], ops: make([]uint8, n)}
	}
	return nil
}

// nextBatch prepares as many requests as are sent at once.
func (g *generator) nextBatch(c *conn) []byte {
	b := c.batch
	b.answered = 0
	at := 0
	for i := range b.ops {
		at += copy(b.mem[at:], g.oneKV(c, c.n+uint64(i)))
		b.ops[i] = c.op
	}
	return b.mem[:at]
}

// inputBatch consumes answers and reports whether all have come.
func (g *generator) inputBatch(c *conn, b []byte) (next bool, err error) {
	for len(b) > 0 {
		if c.batch.answered == len(c.batch.ops) {
			return false, fmt.Errorf("%d bytes behind the last response", len(b))
		}
		n, done, err := c.resp.takeRESP(b)
		if err != nil {
			return false, err
		}
		b = b[n:]
		if !done {
			continue
		}
		c.op = c.batch.ops[c.batch.answered]
		c.batch.answered++
		if err := g.answered(c); err != nil {
			return false, err
		}
	}
	return c.batch.answered == len(c.batch.ops), nil
}

// feedRESP is feed for Redis's protocol.
func (r *response) feedRESP(b []byte) (done bool, err error) {
	n, done, err := r.takeRESP(b)
	if err == nil && n < len(b) {
		err = fmt.Errorf("%d bytes behind the response", len(b)-n)
	}
	return done && err == nil, err
}

// takeRESP takes from b what belongs to the next response, and reports how much that
// was and whether it completes the response. A missing key counts as status 404, an
// error as 500.
func (r *response) takeRESP(b []byte) (n int, done bool, err error) {
	all := len(b)
	if !r.inBody {
		had := len(r.head)
		line := b
		if had > 0 {
			r.head = append(r.head, b...)
			line = r.head
		}
		i := bytes.IndexByte(line, '\n')
		if i < 0 {
			if len(line) > maxHeader {
				return 0, false, errors.New("response line too long")
			}
			if had == 0 {
				r.head = append(r.head, b...)
			}
			return all, false, nil
		}
		if i < 2 || line[i-1] != '\r' {
			return 0, false, fmt.Errorf("malformed response %.40q", line)
		}
		r.status, r.length, r.left = 200, 0, 0
		switch line[0] {
		case '+':
		case '-':
			r.status = 500
		case '$':
			n, err := strconv.Atoi(string(line[1 : i-1]))
			if err != nil || n < -1 {
				return 0, false, fmt.Errorf("malformed response %.40q", line)
			}
			if n < 0 {
				r.status = 404
				break
			}
			r.length, r.left = int64(n), int64(n)+2
		default:
			return 0, false, fmt.Errorf("unexpected response %.40q", line)
		}
		b = b[i+1-had:]
		r.head = r.head[:0]
		r.inBody = true
	}
	body := min(int64(len(b)), r.left)
	b = b[body:]
	if r.left -= body; r.left > 0 {
		return all, false, nil
	}
	r.inBody = false
	return all - len(b), true, nil
}
