package kvd

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/pmem/kv"
)

func (h *handler) put(x *httpd.Exchange, q *request) error {
	v := kv.Value{Frags: x.Body()}
	front := x.Front()
	if len(v.Frags) > 0 {
		var b [maxHead]byte
		head := appendHead(b[:0], h.shared.appendNewTag(h.tag[:0]), "", x.BodyLen())
		if f := &v.Frags[0]; front >= len(head) && int(f.Off) >= len(head) && x.BodyLen() > int64(len(head)) {
			f.Off -= uint16(len(head))
			f.Len += uint16(len(head))
			copy(h.store.Pool().Frame(f.Frame)[f.Off:], head)
			v.Pre = uint8(len(head))
			front -= len(head)
		}
	}
	status, replaced, err := h.change(q, func() (bool, error) { return h.store.Put(q.key, &v, front) })
	switch {
	case err != nil:
		return h.failed(x, err)
	case status != 0:
		return h.refuse(x, status)
	case replaced:
		return h.done(x, http.StatusNoContent)
	}
	return h.done(x, http.StatusCreated)
}

// change makes a change if the conditions of the request hold, else it returns
// the status of the refusal.
func (h *handler) change(q *request, do func() (bool, error)) (status int, was bool, err error) {
	h.shared.write.Lock()
	defer h.shared.write.Unlock()
	if status, err = h.permitted(q); status == 0 && err == nil {
		was, err = do()
	}
	return status, was, err
}

func (h *handler) delete(x *httpd.Exchange, q *request) error {
	status, found, err := h.change(q, func() (bool, error) { return h.store.Delete(q.key) })
	switch {
	case err != nil:
		return h.failed(x, err)
	case status != 0:
		return h.refuse(x, status)
	case !found:
		return h.answer(x, http.StatusNotFound, "no such key")
	}
	return h.done(x, http.StatusNoContent)
}

// appendHead renders the head of the answer that carries a value. The tag comes
// first, where appendTag looks for it.
func appendHead(b, tag []byte, field string, length int64) []byte {
	b = append(b, statusLine+tagField...)
	b = append(b, tag...)
	b = append(b, "\r\n"...)
	b = append(b, field...)
	b = append(b, "Content-Type: application/octet-stream\r\nContent-Length: "...)
	b = strconv.AppendInt(b, length, 10)
	return append(b, "\r\n\r\n"...)
}

func (h *handler) get(x *httpd.Exchange, q *request) error {
	v := &h.value
	found, err := h.store.Get(q.key, v)
	switch {
	case err != nil:
		return h.failed(x, err)
	case !found:
		return h.missing(x, q)
	}
	if !q.cond.none() || q.act == actHead {
		tag := h.appendTag(h.tag[:0], v)
		if status := q.cond.hold(q.act, tag); status != 0 || q.act == actHead {
			defer h.store.Release(v)
			switch status {
			case 0:
				return x.Reply(appendHead(h.out[:0], tag, x.Form(), v.Size()))
			case http.StatusNotModified:
				return h.notModified(x, tag)
			}
			return h.refuse(x, status)
		}
	}
	frags := v.Frags
	field := x.Form()
	if v.Pre == 0 || field != "" {
		h.out = appendHead(h.out[:0], h.appendTag(h.tag[:0], v), field, v.Size())
		if err := x.Reply(append(h.out, v.Inline...)); err != nil {
			h.store.Release(v)
			return err
		}
		if v.Pre > 0 {
			// The head that is stored with the value is not the right one.
			f := &frags[0]
			f.Off += uint16(v.Pre)
			f.Len -= uint16(v.Pre)
		}
	}
	for i, f := range frags {
		if err := x.ReplyFrame(f); err != nil {
			v.Frags = frags[i:]
			h.store.Release(v)
			return err
		}
	}
	return nil
}

// missing answers a GET or HEAD of a key that is not there.
func (h *handler) missing(x *httpd.Exchange, q *request) error {
	if status := q.cond.hold(q.act, nil); status != 0 {
		return h.refuse(x, status)
	}
	if q.act == actHead {
		return h.done(x, http.StatusNotFound)
	}
	return h.answer(x, http.StatusNotFound, "no such key")
}

func (h *handler) notModified(x *httpd.Exchange, tag []byte) error {
	h.out = fmt.Appendf(h.out[:0], "HTTP/1.1 304 Not Modified\r\n%s%s\r\n%s\r\n", tagField, tag, x.Form())
	return x.Reply(h.out)
}
