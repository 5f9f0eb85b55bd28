package kvd

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"

	"github.com/pastenet/paste/internal/httpd"
)

// parseRange reads a Range field with one range of bytes. ok is false of what is to be
// ignored, as RFC 9110 (14.2) allows: other units, several ranges, what is malformed.
// A range that the value does not have has n == 0.
func parseRange(field []byte, size int64) (from, n int64, ok bool) {
	spec, ok := bytes.CutPrefix(field, []byte("bytes="))
	if !ok {
		return 0, 0, false
	}
	first, last, ok := bytes.Cut(bytes.TrimSpace(spec), []byte("-"))
	if !ok || len(first)+len(last) == 0 {
		return 0, 0, false
	}
	a, okA := offset(first)
	b, okB := offset(last)
	switch {
	case !okA || !okB:
		return 0, 0, false
	case len(first) == 0: // the last b bytes
		n = min(b, size)
		return size - n, n, true
	case len(last) == 0:
		b = size - 1
	case b < a:
		return 0, 0, false
	}
	b = min(b, size-1)
	return a, max(b-a+1, 0), true
}

// offset is a number in a range; an empty one is 0, and one that is too large for
// any value is as good as another.
func offset(b []byte) (int64, bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	if len(b) == 0 {
		return 0, true
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return 1<<62 - 1, true
	}
	return n, true
}

// wanted says whether the part that a request asks for is to be sent, and not the
// whole: if If-Range names the value (a time names none, as no times are kept).
func (q *request) wanted(m *meta) bool {
	return q.act == actGet && q.rang != nil && (q.ifRange == nil || bytes.Equal(q.ifRange, m.tag))
}

// part answers with a part of the value in h.value, and gives that up.
func (h *handler) part(x *httpd.Exchange, q *request, m *meta) (done bool, err error) {
	v := &h.value
	size := v.Size()
	from, n, ok := parseRange(q.rang, size)
	if !ok {
		return false, nil
	}
	if n == 0 {
		defer h.store.Release(v)
		text := "the value does not have that range\n"
		h.out = fmt.Appendf(h.out[:0], "HTTP/1.1 416 %s\r\n%sContent-Range: bytes */%d\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Length: %d\r\n\r\n%s",
			http.StatusText(http.StatusRequestedRangeNotSatisfiable), x.Form(), size, len(text), text)
		return true, x.Reply(h.out)
	}
	b := append(h.out[:0], "HTTP/1.1 206 Partial Content\r\n"...)
	b = appendMeta(b, m, x.Form())
	h.out = fmt.Appendf(b, "Content-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n", from, from+n-1, size, n)
	if len(v.Frags) == 0 {
		return true, x.Reply(append(h.out, v.Inline[from:from+n]...))
	}
	if err := x.Reply(h.out); err != nil {
		h.store.Release(v)
		return true, err
	}
	return true, h.sendFrags(x, int64(v.Pre)+from, n)
}

// sendFrags sends n bytes of the value in h.value, from a byte of its fragments on,
// and gives up all of it.
func (h *handler) sendFrags(x *httpd.Exchange, from, n int64) error {
	v := &h.value
	for i, f := range v.Frags {
		skip := min(from, int64(f.Len))
		from -= skip
		f.Off += uint16(skip)
		f.Len = uint16(min(int64(f.Len)-skip, n))
		if n -= int64(f.Len); f.Len == 0 {
			h.store.Pool().Unref(f.Frame)
			continue
		}
		if err := x.ReplyFrame(f); err != nil {
			v.Frags = v.Frags[i:]
			h.store.Release(v)
			return err
		}
	}
	v.Frags = v.Frags[:0]
	return nil
}
