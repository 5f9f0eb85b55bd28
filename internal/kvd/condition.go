package kvd

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pastenet/paste/internal/http1"
	"github.com/pastenet/paste/internal/httpd"
)

// An entity tag names one state of a value. That of a value with the head of its
// answer in front of it is a number that is given out once, and is in that head;
// that of any other value is made of its checksum and length.

// shared is what the handlers of all rings have in common.
type shared struct {
	// write is held from the look at a condition until the change, and by every
	// other change, so that none comes between the two.
	write  sync.Mutex
	tags   atomic.Uint64 // the last number that was given out
	expire expiryIndex
	dirty  atomic.Bool // expire has changed since the last Commit
	now    func() time.Time
}

// newShared begins the numbers somewhere, so that those of two servers over one
// pool, one after the other, differ.
func newShared() *shared {
	var b [8]byte
	rand.Read(b[:]) // it never fails
	s := &shared{now: time.Now}
	s.tags.Store(binary.LittleEndian.Uint64(b[:]))
	return s
}

// appendNewTag appends a tag that was never given out.
func (s *shared) appendNewTag(b []byte) []byte {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], s.tags.Add(1))
	b = append(b, '"')
	b = base64.RawURLEncoding.AppendEncode(b, n[:])
	return append(b, '"')
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sumOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// conditions are those of a request in progress.
type conditions struct {
	match, noneMatch []byte // lists of tags; nil: none
}

// copy takes the conditions of r, whose bytes do not last. A status that is not
// 0 refuses what cannot be honoured.
func (c *conditions) copy(q *request, r *http1.Request) (status int) {
	c.match, c.noneMatch = nil, nil
	changes := q.act == actPut || q.act == actDelete
	switch {
	case r.ContentRange && changes: // it would overwrite the whole with a part
		return http.StatusNotImplemented
	case r.IfUnmodifiedSince && changes: // no times are kept
		return http.StatusPreconditionFailed
	case q.act == actList && (r.IfMatch != nil || r.IfNoneMatch != nil): // lists have no tags
		return http.StatusNotImplemented
	}
	if r.IfMatch != nil {
		c.match = append(make([]byte, 0, len(r.IfMatch)), r.IfMatch...)
	}
	if r.IfNoneMatch != nil {
		c.noneMatch = append(make([]byte, 0, len(r.IfNoneMatch)), r.IfNoneMatch...)
	}
	return 0
}

func (c *conditions) none() bool { return c.match == nil && c.noneMatch == nil }

// hold says with which status a request is answered instead of being served, 0
// if its conditions hold (RFC 9110, 13.2.2). tag is that of the value, nil if
// there is no value.
func (c *conditions) hold(act action, tag []byte) (status int) {
	if c.match != nil && !listed(c.match, tag, false) {
		return http.StatusPreconditionFailed
	}
	if c.noneMatch != nil && listed(c.noneMatch, tag, true) {
		if act == actGet || act == actHead {
			return http.StatusNotModified
		}
		return http.StatusPreconditionFailed
	}
	return 0
}

// listed reports whether tag is in a list, or there is one and the list is "*".
// A weak tag is that of something else unless weak says that it will do.
func listed(list, tag []byte, weak bool) bool {
	if tag == nil {
		return false
	}
	if string(bytes.TrimSpace(list)) == "*" {
		return true
	}
	for len(list) > 0 {
		list = bytes.TrimLeft(list, " \t,")
		rest, isWeak := bytes.CutPrefix(list, []byte("W/"))
		end := -1
		if len(rest) > 0 && rest[0] == '"' {
			end = bytes.IndexByte(rest[1:], '"')
		}
		if end < 0 {
			return false // no tag: nothing after it can be told
		}
		if bytes.Equal(rest[:end+2], tag) && (weak || !isWeak) {
			return true
		}
		list = rest[end+2:]
	}
	return false
}

// permitted looks at the conditions of a request that changes something. It
// returns the status of a refusal, or 0.
func (h *handler) permitted(q *request) (status int, err error) {
	if q.cond.none() {
		return 0, nil
	}
	return h.holds(&q.cond, q.act, q.key)
}

// holds is conditions.hold for what is under a key.
func (h *handler) holds(c *conditions, act action, key []byte) (status int, err error) {
	found, err := h.lookup(key)
	if err != nil {
		return 0, err
	}
	var tag []byte
	if found {
		tag = bytes.Clone(h.metaOf(&h.value).tag)
		h.store.Release(&h.value)
	}
	return c.hold(act, tag), nil
}

// refuse answers a request whose conditions do not hold.
func (h *handler) refuse(x *httpd.Exchange, status int) error {
	return h.answer(x, status, "the condition does not hold")
}
