package kvd

import (
	"fmt"

	"github.com/pastenet/paste/internal/http1"
	"github.com/pastenet/paste/internal/httpd"
)

func (h *handler) keys(x *httpd.Exchange, q *request) error {
	from := q.list.after
	if from != nil {
		from = append(from, 0) // the first key behind it
	}
	var body []byte
	err := h.store.Scan(q.list.prefix, from, q.list.limit, func(key []byte) bool {
		body = append(encode(body, key), '\n')
		return true
	})
	if err != nil {
		return h.failed(x, err)
	}
	b := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\n%sContent-Type: text/plain; charset=us-ascii\r\nContent-Length: %d\r\n\r\n", x.Form(), len(body))
	if x.Request().Method == http1.MethodHead {
		return x.Reply(b)
	}
	return x.Reply(append(b, body...))
}
