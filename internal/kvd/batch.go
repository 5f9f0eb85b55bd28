package kvd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

// Limits of a batch.
const (
	// maxBatchBytes bounds the time for which a ring's other clients wait while a batch
	// is read and made.
	maxBatchBytes = 1 << 20
	maxBatch      = 1000 // operations
)

// operation is a line of a batch.
type operation struct {
	Put         *string `json:"put"`    // a key, percent-encoded
	Delete      *string `json:"delete"` // likewise
	Text        *string `json:"text"`   // the value
	Data        *[]byte `json:"data"`   // the value, in base64
	Type        string  `json:"type"`
	TTL         *int64  `json:"ttl"`
	IfMatch     string  `json:"if_match"`
	IfNoneMatch string  `json:"if_none_match"`

	key []byte
}

// check returns what is wrong with an operation.
func (o *operation) check() string {
	name := o.Put
	if name == nil {
		name = o.Delete
	}
	switch {
	case (o.Put == nil) == (o.Delete == nil):
		return "an operation has either put or delete, with a key"
	case o.Put != nil && (o.Text == nil) == (o.Data == nil):
		return "put has either text or data, which is the value in base64"
	case o.Delete != nil && (o.Text != nil || o.Data != nil || o.Type != "" || o.TTL != nil):
		return "delete has neither text, data, type nor ttl"
	case o.TTL != nil && (*o.TTL < 1 || *o.TTL > maxTTL):
		return "ttl is a number of seconds, from 1 to 3153600000"
	case len(o.Type) > maxType || !fieldValue(o.Type):
		return "type is a Content-Type of at most 100 printable characters"
	}
	key, ok := decode(nil, []byte(*name), false)
	if !ok || len(key) == 0 || len(key) > kv.MaxKey {
		return "a key has 1 to 255 bytes, percent-encoded"
	}
	o.key = key
	return ""
}

// fieldValue says whether s may stand in a header.
func fieldValue(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// value is what is put.
func (o *operation) value() []byte {
	if o.Text != nil {
		return []byte(*o.Text)
	}
	return *o.Data
}

// parseBatch reads the operations of a body; text says what is wrong with it.
func parseBatch(body []byte) (list []operation, text string) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	for {
		var o operation
		err := d.Decode(&o)
		switch {
		case errors.Is(err, io.EOF) && len(list) == 0:
			return nil, "a batch has at least one operation, a line of JSON for each"
		case errors.Is(err, io.EOF):
			return list, ""
		case err != nil:
			return nil, fmt.Sprintf("operation %d: %v", len(list)+1, err)
		case len(list) == maxBatch:
			return nil, fmt.Sprintf("a batch has at most %d operations", maxBatch)
		}
		if text := o.check(); text != "" {
			return nil, fmt.Sprintf("operation %d: %s", len(list)+1, text)
		}
		list = append(list, o)
	}
}

// batch makes the changes of a batch, all of them or none.
func (h *handler) batch(x *httpd.Exchange) error {
	if x.BodyLen() > maxBatchBytes {
		return h.answer(x, http.StatusRequestEntityTooLarge, fmt.Sprintf("a batch has at most %d bytes", maxBatchBytes))
	}
	body := make([]byte, 0, x.BodyLen())
	for _, f := range x.Body() {
		body = append(body, h.store.Pool().Frame(f.Frame)[f.Off:][:f.Len]...)
	}
	list, text := parseBatch(body)
	if text != "" {
		return h.answer(x, http.StatusBadRequest, text)
	}
	refused, err := h.applyBatch(list)
	switch {
	case err != nil:
		return h.failed(x, err)
	case refused > 0:
		return h.answer(x, http.StatusPreconditionFailed, fmt.Sprintf("operation %d: the condition does not hold; nothing was changed", refused))
	}
	return h.done(x, http.StatusNoContent, "")
}

// applyBatch returns the number of an operation whose condition does not hold, from 1
// on. Conditions are about what was there before the batch.
func (h *handler) applyBatch(list []operation) (refused int, err error) {
	h.shared.write.Lock()
	defer h.shared.write.Unlock()
	for i := range list {
		o := &list[i]
		c := conditions{match: []byte(o.IfMatch), noneMatch: []byte(o.IfNoneMatch)}
		if o.IfMatch == "" {
			c.match = nil
		}
		if o.IfNoneMatch == "" {
			c.noneMatch = nil
		}
		if c.none() {
			continue
		}
		if status, err := h.holds(&c, actPut, o.key); err != nil || status != 0 {
			return i + 1, err
		}
	}
	var frames []uint32
	defer func() { h.store.Pool().UnrefAll(frames) }()
	changes := make([]kv.Change, len(list))
	for i := range list {
		if changes[i], err = h.changeOf(&list[i], &frames); err != nil {
			return 0, err
		}
	}
	return 0, h.store.Apply(changes...)
}

// changeOf makes a change of an operation. It adds to frames what is to be given up
// after it.
func (h *handler) changeOf(o *operation, frames *[]uint32) (c kv.Change, err error) {
	if o.Delete != nil {
		return kv.Change{Key: o.key, Delete: true}, nil
	}
	m := meta{}
	if o.Type != "" && o.Type != defaultType {
		m.ctype = []byte(o.Type)
	}
	if o.TTL != nil {
		m.expires = h.deadline(*o.TTL)
		if err := h.noteExpiry(m.expires, o.key); err != nil {
			return c, err
		}
	}
	if m.ctype == nil && m.expires == 0 {
		return kv.Change{Key: o.key, Bytes: o.value()}, nil
	}
	body, err := h.frames(o.value())
	for _, f := range body {
		*frames = append(*frames, f.Frame)
	}
	if err != nil {
		return c, err
	}
	m.tag = h.shared.appendNewTag(h.tag[:0])
	var b [maxHead]byte
	v, front, err := h.prepend(appendHead(b[:0], &m, "", int64(len(o.value()))), body, len(o.key))
	if err != nil {
		return c, err
	}
	*frames = append(*frames, v.Frags[0].Frame)
	return kv.Change{Key: o.key, Value: &v, Front: front}, nil
}

// frames copies b into frames of the pool, which are the caller's to give up, also on
// an error.
func (h *handler) frames(b []byte) (list []pmem.Fragment, err error) {
	for len(b) > 0 {
		frame, err := h.frame()
		if err != nil {
			return list, err
		}
		n := copy(h.store.Pool().Frame(frame), b)
		list = append(list, pmem.Fragment{Frame: frame, Len: uint16(n)})
		b = b[n:]
	}
	return list, nil
}
