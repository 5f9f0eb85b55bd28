package kvd

import (
	"bytes"
	"fmt"

	"github.com/pastenet/paste/internal/http1"
	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/pmem/kv"
)

// pieceBytes is how much of a list is made at once, bytes: a list that is longer
// is made while it is sent, so that others are served meanwhile.
const pieceBytes = 16 << 10

// piece appends the next keys to b, and reports whether they are the last.
func (h *handler) piece(b []byte, q *list) (_ []byte, last bool, err error) {
	n := 0
	err = h.scan(q.prefix, q.from, q.limit, func(key []byte) bool {
		b = append(encode(b, key), '\n')
		q.from = append(append(q.from[:0], key...), 0) // the first key behind it
		n++
		return len(b) < pieceBytes
	})
	q.limit -= n
	return b, len(b) < pieceBytes || q.limit == 0, err
}

// scan is the store's Scan, without keys whose values have expired.
func (h *handler) scan(prefix, from []byte, limit int, fn func(key []byte) bool) error {
	if !h.shared.expire.any() {
		return h.store.Scan(prefix, from, limit, fn)
	}
	if string(from) < string(prefix) {
		from = prefix
	}
	return h.store.Ascend(from, func(key []byte, v *kv.Value) bool {
		if !bytes.HasPrefix(key, prefix) {
			return false
		}
		if h.expired(v) {
			return true
		}
		limit--
		return fn(key) && limit != 0
	})
}

// keys answers with a list, or with the first piece of one.
func (h *handler) keys(x *httpd.Exchange, q *request) error {
	r := x.Request()
	body, last, err := h.piece(h.body[:0], &q.list)
	h.body = body
	if err != nil {
		return h.failed(x, err)
	}
	q.list.chunked = !last && r.Minor > 0
	how := fmt.Sprintf("Content-Length: %d\r\n", len(body))
	switch {
	case q.list.chunked:
		how = "Transfer-Encoding: chunked\r\n"
	case !last:
		x.Close() // the end of the stream is that of the list
		how = ""
	}
	h.out = fmt.Appendf(h.out[:0], "HTTP/1.1 200 OK\r\n%sContent-Type: text/plain; charset=us-ascii\r\n%s\r\n", x.Form(), how)
	if r.Method == http1.MethodHead {
		return x.Reply(h.out)
	}
	if !last {
		x.More()
	}
	return x.Reply(h.chunk(h.out, body, &q.list, false))
}

// chunk appends a piece of a list to b, in the form that it is sent in.
func (h *handler) chunk(b, piece []byte, q *list, last bool) []byte {
	if !q.chunked {
		return append(b, piece...)
	}
	if len(piece) > 0 {
		b = fmt.Appendf(b, "%x\r\n%s\r\n", len(piece), piece)
	}
	if last {
		b = append(b, "0\r\n\r\n"...)
	}
	return b
}

// More implements httpd.Handler: it makes the next piece of a list.
func (h *handler) More(x *httpd.Exchange) error {
	q := x.State().(*request)
	body, last, err := h.piece(h.body[:0], &q.list)
	h.body = body
	if err != nil {
		h.log.Error("list cut off", "err", err)
		x.Abort()
		return nil
	}
	if !last {
		x.More()
	}
	h.out = h.chunk(h.out[:0], body, &q.list, last)
	return x.Reply(h.out)
}
