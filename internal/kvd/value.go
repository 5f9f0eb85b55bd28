package kvd

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
	"github.com/pastenet/paste/pmem/kv"
)

func (h *handler) put(x *httpd.Exchange, q *request) error {
	v := kv.Value{Frags: x.Body()}
	front := x.Front()
	m := meta{ctype: q.ctype, expires: h.deadline(q.ttl)}
	var frame uint32 // of a head that has no room in front of the body
	if must := m.ctype != nil || m.expires != 0; len(v.Frags) > 0 || must {
		var b [maxHead]byte
		m.tag = h.shared.appendNewTag(h.tag[:0])
		head := appendHead(b[:0], &m, "", x.BodyLen())
		switch {
		case len(v.Frags) > 0 && front >= len(head) && int(v.Frags[0].Off) >= len(head) && (must || x.BodyLen() > int64(len(head))):
			f := &v.Frags[0]
			f.Off -= uint16(len(head))
			f.Len += uint16(len(head))
			copy(h.store.Pool().Frame(f.Frame)[f.Off:], head)
			v.Pre = uint8(len(head))
			front -= len(head)
		case must:
			var err error
			if v, front, err = h.prepend(head, v.Frags, len(q.key)); err != nil {
				return h.failed(x, err)
			}
			frame = v.Frags[0].Frame
			defer h.store.Pool().Unref(frame)
		default:
			m.tag = appendSumTag(h.tag[:0], btree.SumOf(h.store.Pool(), v.Frags), x.BodyLen())
		}
	} else {
		m.tag = appendSumTag(h.tag[:0], 0, 0)
	}
	tag := string(m.tag) // conditions look at another one
	status, replaced, err := h.change(q, func() (bool, error) {
		if m.expires != 0 {
			if err := h.noteExpiry(m.expires, q.key); err != nil {
				return false, err
			}
		}
		return h.store.Put(q.key, &v, front)
	})
	switch {
	case err != nil:
		return h.failed(x, err)
	case status != 0:
		return h.refuse(x, status)
	case replaced:
		return h.done(x, http.StatusNoContent, tag)
	}
	return h.done(x, http.StatusCreated, tag)
}

// prepend makes a value of a head in a frame of its own and a body. The frame is the
// caller's to give up.
func (h *handler) prepend(head []byte, body []pmem.Fragment, keyLen int) (v kv.Value, front int, err error) {
	frame, err := h.frame()
	if err != nil {
		return v, 0, err
	}
	front = 64 + keyLen // for the head of the record
	copy(h.store.Pool().Frame(frame)[front:], head)
	v.Pre = uint8(len(head))
	v.Frags = append([]pmem.Fragment{{Frame: frame, Off: uint16(front), Len: uint16(len(head))}}, body...)
	return v, front, nil
}

// frame returns a free frame, which is the caller's to give up. It makes room for it, if
// that helps.
func (h *handler) frame() (uint32, error) {
	pool := h.store.Pool()
	var frame [1]uint32
	if pool.Alloc(frame[:]) == 0 {
		if _, err := h.store.MakeRoom(); err != nil {
			return 0, err
		}
		if pool.Alloc(frame[:]) == 0 {
			return 0, fmt.Errorf("%w: no frame is free", pmem.ErrFull)
		}
	}
	return frame[0], nil
}

// deadline is when a value that lives for ttl seconds expires: not earlier than
// that, and up to a second later. 0 is never.
func (h *handler) deadline(ttl int64) int64 {
	if ttl == 0 {
		return 0
	}
	return h.shared.now().Unix() + ttl + 1
}

// noteExpiry notes when a key is to be looked at. Who calls it holds shared.write.
func (h *handler) noteExpiry(at int64, key []byte) error {
	h.shared.dirty.Store(true)
	err := h.shared.expire.add(at, key)
	if errors.Is(err, pmem.ErrFull) {
		if _, err := h.store.MakeRoom(); err != nil {
			return err
		}
		err = h.shared.expire.add(at, key)
	}
	return err
}

// change makes a change if the conditions of the request hold, else it returns
// the status of the refusal. was is what do returns, but for a value that has expired.
func (h *handler) change(q *request, do func() (bool, error)) (status int, was bool, err error) {
	h.shared.write.Lock()
	defer h.shared.write.Unlock()
	if status, err = h.permitted(q); status != 0 || err != nil {
		return status, false, err
	}
	gone := false
	if h.shared.expire.any() {
		found, err := h.lookup(q.key)
		if err != nil && !errors.Is(err, pmem.ErrChecksum) {
			return 0, false, err
		}
		if gone = !found && err == nil; found {
			h.store.Release(&h.value)
		}
	}
	was, err = do()
	return 0, was && !gone, err
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
	return h.done(x, http.StatusNoContent, "")
}

func (h *handler) get(x *httpd.Exchange, q *request) error {
	v := &h.value
	found, err := h.lookup(q.key)
	switch {
	case err != nil:
		return h.failed(x, err)
	case !found:
		return h.missing(x, q)
	}
	field := x.Form()
	if !q.cond.none() || q.act == actHead || q.rang != nil {
		m := h.metaOf(v)
		if status := q.cond.hold(q.act, m.tag); status != 0 || q.act == actHead {
			defer h.store.Release(v)
			switch status {
			case 0:
				return x.Reply(appendHead(h.out[:0], &m, "Accept-Ranges: bytes\r\n"+field, v.Size()))
			case http.StatusNotModified:
				return h.notModified(x, m.tag)
			}
			return h.refuse(x, status)
		}
		if q.wanted(&m) {
			if done, err := h.part(x, q, &m); done || err != nil {
				return err
			}
		}
	}
	from := int64(0)
	if v.Pre == 0 || field != "" {
		m := h.metaOf(v)
		h.out = appendHead(h.out[:0], &m, field, v.Size())
		if err := x.Reply(append(h.out, v.Inline...)); err != nil {
			h.store.Release(v)
			return err
		}
		from = int64(v.Pre) // the head that is stored with the value is not the right one
	}
	return h.sendFrags(x, from, int64(v.Len)-from)
}

// missing answers a GET or HEAD of a key that is not there.
func (h *handler) missing(x *httpd.Exchange, q *request) error {
	if status := q.cond.hold(q.act, nil); status != 0 {
		return h.refuse(x, status)
	}
	if q.act == actHead {
		return h.done(x, http.StatusNotFound, "")
	}
	return h.answer(x, http.StatusNotFound, "no such key")
}

func (h *handler) notModified(x *httpd.Exchange, tag []byte) error {
	h.out = fmt.Appendf(h.out[:0], "HTTP/1.1 304 Not Modified\r\n%s%s\r\n%s\r\n", tagField, tag, x.Form())
	return x.Reply(h.out)
}
