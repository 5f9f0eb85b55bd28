package httpd

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/pastenet/paste/internal/http1"
	"github.com/pastenet/paste/pmem"
)

// reading is what is left of an answer with records of the log.
type reading struct {
	query
	chunked bool
	header  bool // it is sent
	next    uint64
	end     uint64 // of the records that the answer has; more may come if it waits
	rec     pmem.Record
	body    encoder       // of rec
	until   time.Duration // by the loop's clock: a list waits for that long
	beat    time.Duration // when followers get a sign of life
	over    bool          // the server ends, or the client has
}

// startReading begins the answer to a complete request about the log.
func (l *loop) startReading(c *conn) error {
	r := c.reading
	switch {
	case r.bad != "":
		fields := ""
		if r.status == http.StatusMethodNotAllowed {
			fields = r.allowed()
		}
		return l.refuseReading(c, max(r.status, http.StatusBadRequest), fields, r.bad)
	case r.what == readHealth:
		return l.refuseReading(c, http.StatusOK, "", "alive")
	case r.what == readReady:
		if why := l.unready(); why != "" {
			return l.refuseReading(c, http.StatusServiceUnavailable, "", why)
		}
		return l.refuseReading(c, http.StatusOK, "", "ready")
	case r.what >= readStatus:
		return l.answerCursor(c)
	}
	l.s.lockLog()
	if r.cursor != "" {
		at, ok := l.s.kept.Cursor(r.cursor)
		if !ok {
			l.s.unlockLog()
			return l.refuseReading(c, http.StatusNotFound, "", fmt.Sprintf("there is no cursor %q", r.cursor))
		}
		r.seq, r.oldest, r.newest = max(at.Next, r.seq), false, false // of a follower that comes again
	}
	log := l.s.pool.Log()
	oldest, next := log.Head(), log.Committed()
	if r.oldest {
		r.seq = oldest
	} else if r.newest {
		r.seq = next
	}
	r.next, r.end = r.seq, r.seq
	var damage error
	if r.what == readOne && r.seq >= oldest && r.seq < next {
		r.max, damage = 1, r.fetch(log)
	}
	l.s.unlockLog()
	switch {
	case r.seq < oldest && r.what != readEvents: // followers are told what they have lost
		return l.refuseReading(c, http.StatusGone, fmt.Sprintf("X-Paste-First: %d\r\n", oldest),
			r.goneText(oldest))
	case r.what == readOne && r.seq >= next, r.seq > next:
		return l.refuseReading(c, http.StatusNotFound, fmt.Sprintf("X-Paste-Next: %d\r\n", next),
			fmt.Sprintf("there is no record %d; the next will be %d", r.seq, next))
	case damage != nil:
		l.Warn("a record cannot be read", "record", r.seq, "err", damage)
		return l.refuseReading(c, http.StatusInternalServerError, "", fmt.Sprintf("record %d is damaged", r.seq))
	}
	r.until, r.beat = l.timer.now+r.wait, l.timer.now+heartbeat
	if r.chunked = c.parser.Request.Minor > 0; !r.chunked && r.what != readOne {
		c.parser.Request.KeepAlive = false
	}
	return l.moreOfLog(c)
}

// goneText says that the first record of an answer is not there any more.
func (r *reading) goneText(oldest uint64) string {
	text := fmt.Sprintf("record %d was dropped; the oldest is %d", r.seq, oldest)
	if r.cursor != "" {
		text += fmt.Sprintf("; cursor %q goes on from there when %d is acknowledged", r.cursor, oldest-1)
	}
	return text
}

// unready says why nothing would be stored now.
func (l *loop) unready() string {
	switch {
	case l.draining:
		return "the server is ending"
	case l.s.pool.Free() > 0 && l.s.pool.Log().Used() < l.s.pool.LogEntries():
	case l.s.cfg.OnFull != Wrap:
		return "the pool is full"
	default:
		l.s.lockLog()
		defer l.s.unlockLog()
		if c, all := l.s.protected(); all {
			return "the pool is full: " + protects(c)
		}
	}
	return ""
}

// refuseReading is an answer without records.
func (l *loop) refuseReading(c *conn, status int, fields, text string) error {
	head := c.reading.head
	c.reading = nil
	b := render(status, form(&c.parser.Request), "Content-Type: text/plain; charset=utf-8\r\n"+fields, text+"\n")
	if head {
		b = b[:len(b)-len(text)-1]
	}
	return l.reply(c, b)
}

// moreOfLog goes on with an answer, as far as the window allows; what is left
// comes when the client has taken some, or when records come.
func (l *loop) moreOfLog(c *conn) error {
	r := c.reading
	for c.phase != dead {
		if l.roomToSend(c) <= 0 {
			c.out.more = true
			l.sends(c)
			return nil
		}
		if r.next == r.end && !l.comes(c) {
			return nil
		}
		done, err := l.step(c)
		if done || err != nil {
			return err
		}
	}
	return nil
}

// comes looks for records, and reports whether there is something to do now: if not,
// the connection waits.
func (l *loop) comes(c *conn) bool {
	r := c.reading
	if r.header && r.what != readEvents {
		return true // it has said how many there are
	}
	l.s.lockLog()
	next := l.s.pool.Log().Committed()
	l.s.unlockLog()
	if r.end = next; r.what != readEvents {
		r.end = min(next, r.seq+min(r.max, next-r.seq))
	}
	switch {
	case r.next < r.end, r.over, r.what == readEvents && !r.header:
		return true
	case r.what == readEvents:
		l.park(c)
		return false
	case r.head || l.timer.now >= r.until:
		return true
	}
	l.park(c)
	return false
}

// step sends the header, or a piece of a record, or the end.
func (l *loop) step(c *conn) (done bool, err error) {
	r := c.reading
	if !r.header {
		r.header = true
		if err := l.readingHeader(c); err != nil || r.head {
			c.reading = nil
			return true, err
		}
		return false, nil
	}
	if r.next >= r.end {
		return true, l.endReading(c)
	}
	log := l.s.pool.Log()
	l.s.lockLog()
	if oldest := log.Head(); r.next < oldest {
		l.s.unlockLog()
		return l.lost(c, oldest)
	}
	buf, whole := l.scratch[:0], false
	if err = r.fetch(log); err == nil {
		buf, whole, err = r.body.fill(buf, &r.rec, min(cap(buf)-2*edge, l.roomToSend(c)))
	}
	l.s.unlockLog()
	if err != nil {
		l.Warn("a record cannot be read", "record", r.next, "err", err)
		l.abort(c) // its answer cannot be completed
		return true, nil
	}
	if whole {
		l.n.Read++
		r.next++
	}
	return false, l.chunk(c, buf)
}

// fetch finds the next record, unless that is done. The log must not change meanwhile.
func (r *reading) fetch(log *pmem.Log) (err error) {
	if r.body.begun && r.body.rec == r.next {
		return nil
	}
	if r.rec, err = log.Record(r.next); err == nil {
		r.body, err = newEncoder(r.format, &r.rec)
	}
	return err
}

// lost is for a reader whose next record has been dropped meanwhile.
func (l *loop) lost(c *conn, oldest uint64) (done bool, err error) {
	r := c.reading
	if r.what != readEvents || r.body.begun && r.body.rec == r.next {
		l.n.Evicted++
		l.abort(c) // its answer cannot be completed
		return true, nil
	}
	text := fmt.Appendf(l.scratch[:0], "event: dropped\ndata: %d-%d\n\n", r.next, oldest-1)
	r.next, r.end = oldest, max(r.end, oldest)
	return false, l.chunk(c, text)
}

func (l *loop) readingHeader(c *conn) error {
	r := c.reading
	b := append(l.scratch[:0], "HTTP/1.1 200 OK\r\n"...)
	b = append(b, formField[form(&c.parser.Request)]...)
	b = append(append(append(b, "Content-Type: "...), contentTypes[r.format]...), "\r\n"...)
	switch {
	case r.what == readOne:
		r.chunked = false
		b = fmt.Appendf(b, "X-Paste-Seq: %d\r\nContent-Length: %d\r\n", r.seq, r.rec.Length)
	case r.what == readEvents:
		b = append(b, "Cache-Control: no-store\r\n"...)
	default:
		b = fmt.Appendf(b, "X-Paste-First: %d\r\nX-Paste-Next: %d\r\n", r.seq, r.end)
	}
	if r.chunked {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	return l.reply(c, append(b, "\r\n"...))
}

// chunk sends b, which is the caller's again afterwards, as a piece of an answer.
func (l *loop) chunk(c *conn, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if c.reading.chunked {
		if err := l.Write(c.fd, &c.out.Out, append(strconv.AppendUint(l.small[:0], uint64(len(b)), 16), "\r\n"...)); err != nil {
			return err
		}
		b = append(b, "\r\n"...)
	}
	return l.Write(c.fd, &c.out.Out, b)
}

// endReading ends an answer. Behind it the connection is as after any other.
func (l *loop) endReading(c *conn) error {
	chunked := c.reading.chunked
	c.reading = nil
	l.expects(c, partIdle)
	var err error
	if chunked {
		err = l.reply(c, []byte("0\r\n\r\n"))
	}
	if err == nil && !c.parser.Request.KeepAlive {
		l.hangUp(c)
	}
	return err
}

// noteReading keeps what a request wants of the log.
func (l *loop) noteReading(c *conn, r *http1.Request) {
	c.reading = &reading{query: parseQuery(r)}
}
