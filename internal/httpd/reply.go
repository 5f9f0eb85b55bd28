package httpd

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"

	"github.com/pastenet/paste/internal/http1"
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
	length := fmt.Sprintf("Content-Length: %d\r\n", len(body))
	if status == http.StatusNoContent { // RFC 9110, 8.6
		length = ""
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\n%s%s%s\r\n%s", status, http.StatusText(status), formField[form], fields, length, body)
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
