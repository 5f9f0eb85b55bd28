package redisd

import "github.com/pastenet/paste/internal/redisd/resp"

// input is what a client has sent and was not looked at: a request that is not
// complete, or what came while an earlier one waits for something, or while the
// client does not read.
type input struct {
	buf    []byte
	parser resp.Parser
}

// inputLimit is how many bytes more than the longest argument one connection may
// have waiting, and four times as many all of a ring's together.
const inputLimit = 16 << 20

// holdFrom is how many bytes may wait while a client's answers do, or it is blocked,
// before it has to wait, too.
const holdFrom = 256 << 10

// wholeAtOnce is the most bytes for which memory is set aside because a client has
// said that as many will come.
const wholeAtOnce = 1 << 20

// input does the commands in a payload, behind what is there already.
func (l *loop) input(c *conn, payload []byte) error {
	if c.in == nil && !c.waits() {
		n, err := l.commands(c, &l.parser, payload)
		if err != nil {
			return err
		}
		if n < len(payload) && c.phase == serving {
			c.in = &input{}
			c.in.parser, l.parser = l.parser, resp.Parser{}
			return l.keep(c, payload[n:])
		}
		l.parser.Reset()
		return nil
	}
	if c.in == nil {
		c.in = &input{}
	}
	if err := l.keep(c, payload); err != nil {
		return err
	}
	return l.resume(c)
}

// keep adds to what waits.
func (l *loop) keep(c *conn, payload []byte) error {
	if need := min(c.in.parser.Need(), wholeAtOnce); cap(c.in.buf) < need {
		// Once, and not again with each segment of an argument.
		l.grow(c.in, need)
	}
	c.in.buf = append(c.in.buf, payload...)
	l.held += len(payload)
	if len(c.in.buf) > holdFrom && c.waits() && !c.held {
		c.held = l.ring.Hold(c.fd) == nil
	}
	if len(c.in.buf) > l.s.cfg.MaxBulk+inputLimit || l.held > l.s.cfg.MaxBulk+4*inputLimit {
		l.s.stats.Evicted++
		l.Warn("connection ended: it has sent too much that it does not complete", "bytes", len(c.in.buf), "of_all", l.held)
		l.abort(c)
	}
	return nil
}

// spareSize is the size of buffers that are used again, of which there are at most
// maxSpares.
const (
	spareSize = 16 << 10
	maxSpares = 64
)

// grow gives input a larger buffer.
func (l *loop) grow(in *input, need int) {
	var b []byte
	if k := len(l.spares); k > 0 && need <= spareSize {
		b = l.spares[k-1]
		l.spares = l.spares[:k-1]
	} else {
		b = make([]byte, 0, max(need, 2048))
	}
	old := in.buf
	in.buf = append(b, old...)
	l.recycle(old)
}

// recycle keeps a buffer for the next one who needs it.
func (l *loop) recycle(b []byte) {
	if cap(b) >= spareSize && cap(b) <= 4*spareSize && len(l.spares) < maxSpares {
		l.spares = append(l.spares, b[:0])
	}
}

// dropInput gives up what waits.
func (l *loop) dropInput(c *conn) {
	if c.in != nil {
		l.held -= len(c.in.buf)
		l.recycle(c.in.buf)
		c.in = nil
	}
}

// waits reports whether nothing that the client has sent may be looked at.
func (c *conn) waits() bool {
	_, blocked := c.client.Blocked()
	return blocked || c.sending()
}

// resume does the commands in what waits, as far as it may.
func (l *loop) resume(c *conn) error {
	if c.in != nil && !c.waits() && c.phase == serving && len(c.in.buf) >= c.in.parser.Need() {
		n, err := l.commands(c, &c.in.parser, c.in.buf)
		if err != nil {
			return err
		}
		if c.in != nil && n > 0 {
			l.held -= n
			if n == len(c.in.buf) {
				l.recycle(c.in.buf)
				c.in = nil
			} else {
				c.in.buf = append(c.in.buf[:0], c.in.buf[n:]...)
			}
		}
	}
	if c.held && !c.waits() {
		c.held = false
		if err := l.ring.Release(c.fd); err != nil && c.phase == serving {
			return err
		}
	}
	if c.eof && c.phase == serving && !c.waits() {
		l.hangUp(c)
	}
	return nil
}

// commands does those that are complete in b, and returns how many bytes they
// have. p is the parser for what b begins with.
func (l *loop) commands(c *conn, p *resp.Parser, b []byte) (n int, err error) {
	r := &c.client.R
	own := r.B == nil
	if own {
		r.B = l.reply[:0]
	}
	for n < len(b) && c.phase == serving && !c.waits() {
		p.MaxBulk, p.AuthFirst = l.s.cfg.MaxBulk, !c.client.Authenticated()
		args, k, perr := p.Next(b[n:], l.args[:0])
		l.args = args[:0]
		if perr != nil {
			l.s.stats.Malformed++
			r.Error("ERR " + perr.Error())
			c.client.Closing = true
			n = len(b)
		} else if k == 0 {
			break
		}
		n += k
		c.wait.since = l.timer.now
		if perr == nil {
			if err := c.client.Do(args); err != nil {
				return n, err
			}
		}
		if r.Len() >= flushFrom || c.client.Closing {
			if err := l.answer(c); err != nil {
				return n, err
			}
		}
	}
	if until, blocked := c.client.Blocked(); blocked {
		l.waitsUntil(until)
	}
	if c.phase == serving || c.phase == flushing {
		err = l.answer(c)
	}
	if own {
		if l.reply = r.B[:0]; cap(l.reply) > 1<<20 {
			l.reply = nil
		}
		r.B = nil
	}
	return n, err
}
