package httpd

import (
	"net/http"

	"github.com/pastenet/paste/internal/http1"
	"github.com/pastenet/paste/pasteapi"
)

// segment is received payload, and the frame it lies in.
type segment struct {
	payload []byte
	slot    *pasteapi.Slot // nil if it was kept earlier
	copied  bool           // it was copied or read, see NS_COPIED
	run     bool           // it lies in a run of frames, see NS_RUN
	doff    int            // of payload in the frame
	frame   uint32         // if kept
	kept    bool           // the frame is out of the ring
	used    int            // bytes of the frame up to the end of the last piece that was kept
}

// status is what the request in progress will be answered with.
type status uint8

const (
	stOK        status = iota // GET, HEAD
	stStore                   // POST, PUT
	stNoMethod                // 405
	stCondition               // 412
	stPart                    // 501
	stTooLarge                // 413
	stFull                    // 507
	stHandled                 // the Handler's, and its body is not wanted
	stRead                    // about the log's records
	stBadKey                  // refused for its Idempotency-Key
)

// input parses a segment and acts on what is complete. An error means that the
// server cannot go on.
func (l *loop) input(c *conn, seg *segment) error {
	rest := seg.payload
	off := seg.doff
	for len(rest) > 0 && c.phase == serving {
		if c.sending() {
			return l.postpone(c, seg, off, rest)
		}
		n, body, ev, perr := c.parser.Feed(rest)
		if perr != nil {
			l.n.Malformed++
			l.n.Requests++
			if err := l.reply(c, malformed(perr)); err != nil {
				return err
			}
			l.hangUp(c)
			return nil
		}
		if ev&http1.Headers != 0 {
			if err := l.begin(c, ev&http1.Done == 0 && len(body) == 0); err != nil {
				return err
			}
			if err := l.announce(c, len(body)); err != nil {
				return err
			}
		}
		if len(body) > 0 && c.phase == serving {
			if err := l.collect(c, seg, off+n-len(body), body, ev&http1.Done != 0); err != nil {
				return err
			}
		}
		if ev&http1.Done != 0 {
			if err := l.finish(c); err != nil {
				return err
			}
		}
		rest = rest[n:]
		off += n
	}
	l.received(c)
	return nil
}

// begin decides about a request whose header is complete; waiting says that no
// byte of its body has come yet.
func (l *loop) begin(c *conn, waiting bool) error {
	r := &c.parser.Request
	c.got, c.body.front, c.headroom, c.key = 0, 0, 0, nil
	l.expects(c, partBody)
	switch {
	case l.handler != nil:
		c.status = stHandled
		l.x.c = c
		if l.handler.Begin(&l.x) {
			c.status = stStore
		}
	case readsLog(r):
		c.status = stRead
		l.noteReading(c, r)
	default:
		if c.status = statusOf(r); r.IdempotencyKey != nil && c.status == stStore {
			l.beginOnce(c, r)
		}
	}
	if r.ContentLength > l.s.cfg.BodyLimit {
		return l.tooLarge(c)
	}
	if waiting && r.ExpectContinue {
		return l.reply(c, l.replies.goOn)
	}
	return nil
}

// announce tells the ring how much of the body follows, of which have bytes are there.
func (l *loop) announce(c *conn, have int) error {
	rest := c.parser.Request.ContentLength - int64(have)
	if c.phase != serving || rest <= int64(l.s.pool.FrameSize()) {
		return nil
	}
	return l.ring.Expect(c.fd, rest)
}

// statusOf decides about a request to the log.
func statusOf(r *http1.Request) status {
	store := r.Method == http1.MethodPost || r.Method == http1.MethodPut
	switch {
	case r.IfMatch != nil, store && r.IfUnmodifiedSince:
		return stCondition // nothing here has a tag or a time
	case store && r.ContentRange:
		return stPart
	case store:
		return stStore
	case r.Method == http1.MethodGet, r.Method == http1.MethodHead:
		return stOK
	}
	return stNoMethod
}

// tooLarge answers without waiting for the end of the body.
func (l *loop) tooLarge(c *conn) error {
	c.status = stTooLarge
	l.n.Requests++
	if err := l.reply(c, l.replies.tooLarge); err != nil {
		return err
	}
	l.hangUp(c)
	return nil
}

// finish answers a complete request.
func (l *loop) finish(c *conn) error {
	if c.phase != serving {
		return nil
	}
	r := &c.parser.Request
	if l.draining {
		r.KeepAlive = false
	}
	l.n.Requests++
	l.expects(c, partIdle)
	var err error
	if l.handler != nil {
		l.x.c = c
		err = l.handler.Finish(&l.x, c.status == stFull)
		l.dropBody(c)
		if err == nil && !r.KeepAlive {
			l.hangUp(c)
		}
		return err
	}
	switch how := form(r); c.status {
	case stOK:
		b := l.replies.get[how]
		if r.Method == http1.MethodHead {
			b = l.replies.head[how]
		}
		err = l.reply(c, b)
	case stStore:
		var seq uint64
		var stored bool
		if seq, stored, err = l.store(c); err != nil {
			return err
		}
		switch {
		case l.s.cfg.Persist == PersistNone:
			err = l.reply(c, l.replies.dropped[how])
		case stored && c.key != nil && c.key.differs():
			err = l.reply(c, render(http.StatusUnprocessableEntity, how, textField, keyConflict))
		case stored:
			err = l.replyStored(c, how, seq)
		default:
			err = l.reply(c, l.fullReply(how))
		}
	case stBadKey:
		err = l.reply(c, render(c.key.status, how, textField, c.key.bad+"\n"))
	case stFull:
		l.n.Full++
		err = l.reply(c, l.fullReply(how))
	case stNoMethod:
		err = l.reply(c, l.replies.noMethod[how])
	case stCondition:
		err = l.reply(c, l.replies.condition[how])
	case stPart:
		err = l.reply(c, l.replies.part[how])
	case stRead:
		err = l.startReading(c)
	}
	if err != nil {
		return err
	}
	if !r.KeepAlive && c.reading == nil {
		l.hangUp(c)
	}
	return nil
}
