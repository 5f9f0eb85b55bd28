package httpd

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/pastenet/paste/internal/http1"
)

var (
	errTxFull = errors.New("no room in the tx ring after a push")
	errNoHome = errors.New("the buffer of a tx slot is lost")
)

// A reply comes in three forms: what it must say about the connection.
const (
	formKeep   = iota // HTTP/1.1, stays open: nothing to say
	formKeep10        // HTTP/1.0, stays open: the client must be told
	formClose
	forms
)

func form(r *http1.Request) int {
	switch {
	case !r.KeepAlive:
		return formClose
	case r.Minor == 0:
		return formKeep10
	}
	return formKeep
}

var formField = [forms]string{"", "Connection: keep-alive\r\n", "Connection: close\r\n"}

// replies are rendered once, and only copied for each request.
type replies struct {
	get, head, dropped, full, noMethod, condition, part, stored [forms][]byte

	goOn, tooLarge, busy, timeout []byte
}

func newReplies(responseBytes int) *replies {
	r := new(replies)
	body := string(bytes.Repeat([]byte{'x'}, responseBytes))
	for f := range forms {
		r.get[f] = render(200, f, "", body)
		r.head[f] = r.get[f][:len(r.get[f])-len(body)]
		r.dropped[f] = render(200, f, "", "")
		r.full[f] = render(507, f, "", "no room in the pool\n")
		r.noMethod[f] = render(405, f, "Allow: GET, HEAD, POST, PUT\r\n", "only GET, HEAD, POST and PUT are served\n")
		r.condition[f] = render(412, f, "", "what is stored here has neither tags nor times\n")
		r.part[f] = render(501, f, "", "a part of something cannot be stored\n")
		r.stored[f] = []byte("HTTP/1.1 201 Created\r\n" + formField[f] + "X-Paste-Seq: ")
	}
	r.goOn = []byte("HTTP/1.1 100 Continue\r\n\r\n")
	r.tooLarge = render(413, formClose, "", "body is larger than the limit\n")
	r.busy = render(503, formClose, "Retry-After: 1\r\n", "too many connections\n")
	r.timeout = render(408, formClose, "", "the request took too long\n")
	return r
}

func render(status, form int, fields, body string) []byte {
	text := http.StatusText(status)
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n%s%sContent-Length: %d\r\n\r\n%s",
		status, text, formField[form], fields, len(body), body)
}

// malformed renders the answer to a request that cannot be parsed.
func malformed(e *http1.Error) []byte {
	return render(e.Status, formClose, "", e.Reason+"\n")
}

// replyStored names the record: its number is in a field, and the body.
func (l *loop) replyStored(c *conn, how int, seq uint64) error {
	var digits [20]byte
	d := strconv.AppendUint(digits[:0], seq, 10)
	head := l.replies.stored[how]
	p := append(append(l.small[:0], head...), d...)
	p = append(p, "\r\nContent-Length: "...)
	p = strconv.AppendUint(p, uint64(len(d)+1), 10)
	p = append(p, "\r\n\r\n"...)
	p = append(append(p, d...), '\n')
	return l.reply(c, p)
}

// write writes b into TX slots. They leave with the next push.
func (l *loop) write(c *conn, b []byte) error {
	// Another reply of this batch to the same client is continued.
	o := &c.out
	if o.sync == l.syncs && l.tx.Next(o.slot) == l.tx.Head && l.lent[o.slot] == 0 {
		slot := l.tx.Slot(o.slot)
		n := copy(l.tx.Buf(slot)[slot.Len:], b)
		slot.Len += uint16(n)
		o.written += int64(n)
		b = b[n:]
	}
	for len(b) > 0 {
		i, err := l.freeSlot()
		if err != nil {
			return err
		}
		if err := l.reclaim(i); err != nil {
			return err
		}
		n := copy(l.tx.Buf(l.tx.Slot(i)), b)
		l.enqueue(c, i, 0, n)
		b = b[n:]
	}
	return nil
}

// freeSlot returns the TX slot that is to be written next, and makes room if
// there is none.
func (l *loop) freeSlot() (uint32, error) {
	if l.tx.Space() == 0 {
		if err := l.push(); err != nil {
			return 0, err
		}
		if l.tx.Space() == 0 {
			return 0, errTxFull
		}
	}
	return l.tx.Head, nil
}

// enqueue sends n bytes of the buffer in freeSlot's slot i, from doff on, with
// the next push.
func (l *loop) enqueue(c *conn, i uint32, doff, n int) {
	slot := l.tx.Slot(i)
	slot.SetFd(c.fd)
	slot.SetDoff(doff)
	slot.Len = uint16(doff + n)
	l.tx.Head = l.tx.Next(i)
	l.tx.Cur = l.tx.Head
	o := &c.out
	if o.sync != l.syncs {
		o.pushed = o.written
	}
	o.sync, o.slot = l.syncs, i
	o.written += int64(n)
}

// push sends what is in the TX ring, in the middle of a batch.
func (l *loop) push() error {
	if err := l.commit(); err != nil {
		return err
	}
	err := l.ring.TxSync()
	l.syncs++
	if err != nil {
		return fmt.Errorf("push replies: %w", err)
	}
	return nil
}
