package loadgen

import (
	"errors"
	"fmt"
)

// input consumes received bytes and reports whether the connection's response
// is complete, so that its next request may go.
func (g *generator) input(c *conn, b []byte) (next bool, err error) {
	if c.batch != nil {
		next, err = g.inputBatch(c, b)
		return next && g.goesOn(c), err
	}
	feed := c.resp.feed
	switch {
	case g.KV.RESP:
		feed = c.resp.feedRESP
	case g.Workload == Echo:
		feed = c.feedEcho
	}
	done, err := feed(b)
	if err != nil || !done {
		return false, err
	}
	if err := g.answered(c); err != nil {
		return false, err
	}
	return g.goesOn(c), nil
}

// goesOn says whether a connection's next request is to be sent now.
func (g *generator) goesOn(c *conn) bool {
	if g.pace != nil {
		g.pace.rest(c)
		return false
	}
	return true
}

// answered counts a complete response.
func (g *generator) answered(c *conn) error {
	ok := c.resp.status/100 == 2
	switch {
	case ok && (g.Workload == RPC || c.op == opGet) && g.Size >= 0 && c.resp.length != int64(g.Size):
		return fmt.Errorf("response of %d bytes, want %d", c.resp.length, g.Size)
	case ok:
		g.res.Acked++
		if g.OnAck != nil {
			g.OnAck(c.id, c.n)
		}
		if g.begun {
			g.res.Requests++
			// Out of range means more than a minute: not worth an error.
			_ = g.res.Latency.RecordValue(max(g.now-c.sentAt, 1_000))
		}
		if g.KV.Preload && g.res.Acked >= uint64(g.KV.Keys+g.Connections) {
			g.stop.Store(true)
		}
	case g.begun:
		g.res.Non2xx++
	}
	if c.resp.closing {
		return errors.New("the server closes the connection")
	}
	c.n++
	return nil
}

// answerBytes is about how much comes at once for a connection.
func (g *generator) answerBytes() int {
	if g.Workload == WAL {
		return 0
	}
	return max(g.Size, 0) * max(g.KV.Pipeline, 1)
}
