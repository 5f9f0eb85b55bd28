package kvd

import (
	"bytes"
	"net/http"
	"strconv"
	"time"

	"github.com/pastenet/paste/pmem/btree"
	"github.com/pastenet/paste/pmem/kv"
)

// The head of an answer that is stored in front of a value is also where its type
// and its time of expiry are kept. The fields are in this order; those of programs
// from before may lack the tag, and all values without a head have the default type
// and no time.
const (
	statusLine   = "HTTP/1.1 200 OK\r\n"
	tagField     = "ETag: "
	expiresField = "Expires: "
	typeField    = "Content-Type: "
	lengthField  = "Content-Length: "
	defaultType  = "application/octet-stream"
)

const (
	maxTag  = 32 // bytes, with its quotes
	maxType = 100
	// maxHead is more than the head of any answer that is stored with a value, whose
	// length has a byte.
	maxHead = 255
)

// meta is what is known of a value beside its bytes.
type meta struct {
	tag     []byte
	ctype   []byte // nil: the default
	expires int64  // seconds since 1970; 0: never
}

// appendHead renders the head of the answer that carries a value. field is what the
// answer says of the connection, which is not stored.
func appendHead(b []byte, m *meta, field string, length int64) []byte {
	b = append(b, statusLine...)
	b = appendMeta(b, m, field)
	b = append(b, lengthField...)
	b = strconv.AppendInt(b, length, 10)
	return append(b, "\r\n\r\n"...)
}

// appendMeta renders the fields that answers with a value, or a part of it, have in common.
func appendMeta(b []byte, m *meta, field string) []byte {
	b = append(b, tagField...)
	b = append(append(b, m.tag...), "\r\n"...)
	b = append(b, field...)
	if m.expires != 0 {
		b = append(b, expiresField...)
		b = time.Unix(m.expires, 0).UTC().AppendFormat(b, http.TimeFormat)
		b = append(b, "\r\n"...)
	}
	b = append(b, typeField...)
	if m.ctype != nil {
		b = append(b, m.ctype...)
	} else {
		b = append(b, defaultType...)
	}
	return append(b, "\r\n"...)
}

// headOf returns the head that is stored in front of a value; nil if there is none.
func (h *handler) headOf(v *kv.Value) []byte {
	if v.Pre == 0 {
		return nil
	}
	f := v.Frags[0]
	return h.store.Pool().Frame(f.Frame)[f.Off:][:v.Pre]
}

// parseHead reads a stored head. What it finds lies in the head.
func parseHead(head []byte) (m meta) {
	rest, ok := bytes.CutPrefix(head, []byte(statusLine))
	for ok && len(rest) > 0 {
		var line []byte
		line, rest, ok = bytes.Cut(rest, []byte("\r\n"))
		if value, is := bytes.CutPrefix(line, []byte(tagField)); is {
			m.tag = value
		} else if value, is := bytes.CutPrefix(line, []byte(expiresField)); is {
			if at, err := time.Parse(http.TimeFormat, string(value)); err == nil {
				m.expires = at.Unix()
			}
		} else if value, is := bytes.CutPrefix(line, []byte(typeField)); is && string(value) != defaultType {
			m.ctype = value
		}
	}
	return m
}

// metaOf returns what is known of a value that Get has returned. It is valid as long
// as the value is held, and until the next call.
func (h *handler) metaOf(v *kv.Value) meta {
	m := parseHead(h.headOf(v))
	if m.tag != nil {
		return m
	}
	sum := v.Sum
	switch {
	case v.Pre > 0: // it was stored before values had tags
		f := v.Frags[0]
		f.Off += uint16(v.Pre)
		f.Len -= uint16(v.Pre)
		h.frags = append(append(h.frags[:0], f), v.Frags[1:]...)
		if f.Len == 0 {
			h.frags = h.frags[1:]
		}
		sum = btree.SumOf(h.store.Pool(), h.frags)
	case len(v.Frags) == 0:
		sum = sumOf(v.Inline)
	}
	m.tag = appendSumTag(h.tag[:0], sum, v.Size())
	return m
}

// appendSumTag appends the tag of a value without one of its own.
func appendSumTag(b []byte, sum uint32, size int64) []byte {
	b = append(b, '"')
	b = strconv.AppendUint(b, uint64(sum), 16)
	b = append(b, '-')
	b = strconv.AppendInt(b, size, 16)
	return append(b, '"')
}

// expiry is when a value expires, without looking at more of its head than it must.
func (h *handler) expiry(v *kv.Value) int64 {
	head := h.headOf(v)
	if len(head) == 0 || !bytes.Contains(head, []byte("\r\n"+expiresField)) {
		return 0
	}
	return parseHead(head).expires
}

// lookup is Get of a value that has not expired.
func (h *handler) lookup(key []byte) (found bool, err error) {
	if found, err = h.store.Get(key, &h.value); err != nil || !found {
		return false, err
	}
	if h.shared.expire.any() && h.expired(&h.value) {
		h.store.Release(&h.value)
		return false, nil
	}
	return true, nil
}

func (h *handler) expired(v *kv.Value) bool {
	at := h.expiry(v)
	return at != 0 && at <= h.shared.now().Unix()
}
