package kvd

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"

	"github.com/pastenet/paste/internal/http1"
	"github.com/pastenet/paste/internal/httpd"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

// action is what a request asks for.
type action uint8

const (
	actError action = iota // answer with the status that was found out already
	actGet
	actHead
	actPut
	actDelete
	actList
)

// request is what is known of a connection's request in progress.
type request struct {
	act    action
	status int // of actError
	key    []byte
	list   list
	cond   conditions
	room   [kv.MaxKey]byte // of key
}

// handler answers the requests of one ring.
type handler struct {
	store  *kv.Store
	shared *shared
	log    *slog.Logger
	value  kv.Value
	out    []byte
	body   []byte // of a list
	frags  []pmem.Fragment
	tag    [maxTag]byte
}

// DefaultBodyLimit is the length in bytes beyond which a value gets 413, unless
// the configuration says otherwise.
const DefaultBodyLimit = 16 << 20

// maxValue is the length of the longest value, whose head counts too.
const maxValue = math.MaxUint32 - maxHead

// New makes a server over a store in the same pool. A BodyLimit of 0 is
// DefaultBodyLimit, or what the pool allows for if that is less.
func New(cfg httpd.Config, store *kv.Store) (*httpd.Server, error) {
	log := cfg.Logger
	if log == nil {
		log = slog.Default()
	}
	switch most := min(cfg.LargestBody(store.Pool()), maxValue); {
	case cfg.BodyLimit == 0:
		cfg.BodyLimit = min(DefaultBodyLimit, most)
	case cfg.BodyLimit > maxValue:
		return nil, fmt.Errorf("new key-value server: values of up to %d bytes (BodyLimit): one has at most %d", cfg.BodyLimit, int64(maxValue))
	}
	shared := newShared()
	return httpd.NewWithHandler(cfg, store.Pool(), func() httpd.Handler {
		return &handler{store: store, shared: shared, log: log}
	})
}

// maxHead is more than the head of any answer that is stored with a value.
const maxHead = 160

// Begin implements httpd.Handler.
func (h *handler) Begin(x *httpd.Exchange) bool {
	q, ok := x.State().(*request)
	if !ok {
		q = new(request)
		x.SetState(q)
	}
	h.parse(q, x.Request())
	if status := q.cond.copy(q, x.Request()); status != 0 {
		q.act, q.status = actError, status
	}
	if q.act != actPut {
		return false
	}
	x.SetHeadroom(maxHead + 24 + len(q.key))
	return true
}

func (h *handler) parse(q *request, r *http1.Request) {
	q.act, q.status = actError, http.StatusNotFound
	target := origin(r.Target)
	raw, ok := bytes.CutPrefix(target, []byte(keyPath))
	if !ok {
		path, query, _ := bytes.Cut(target, []byte("?"))
		if string(path) != listPath {
			return
		}
		if r.Method != http1.MethodGet && r.Method != http1.MethodHead {
			q.status = http.StatusMethodNotAllowed
			return
		}
		q.status = http.StatusBadRequest
		if q.list, ok = parseList(query); ok {
			q.act = actList
		}
		return
	}
	raw, _, _ = bytes.Cut(raw, []byte("?"))
	if len(raw) > 3*kv.MaxKey {
		q.status = http.StatusRequestURITooLong
		return
	}
	if q.key, ok = decode(q.room[:0], raw, false); !ok || len(q.key) == 0 {
		q.status = http.StatusBadRequest
		return
	}
	if len(q.key) > kv.MaxKey {
		q.status = http.StatusRequestURITooLong
		return
	}
	switch r.Method {
	case http1.MethodGet:
		q.act = actGet
	case http1.MethodHead:
		q.act = actHead
	case http1.MethodPut, http1.MethodPost:
		q.act = actPut
	case http1.MethodDelete:
		q.act = actDelete
	default:
		q.status = http.StatusMethodNotAllowed
	}
}

// Commit implements httpd.Handler.
func (h *handler) Commit() error { return h.store.Commit() }

// MakeRoom implements httpd.Handler.
func (h *handler) MakeRoom() (bool, error) { return h.store.MakeRoom() }

// Finish implements httpd.Handler.
func (h *handler) Finish(x *httpd.Exchange, full bool) error {
	q := x.State().(*request)
	switch q.act {
	case actPut:
		if full {
			return h.answer(x, http.StatusInsufficientStorage, "no room in the pool")
		}
		return h.put(x, q)
	case actGet, actHead:
		return h.get(x, q)
	case actDelete:
		return h.delete(x, q)
	case actList:
		return h.keys(x, q)
	}
	switch q.status {
	case http.StatusBadRequest:
		return h.answer(x, q.status, "bad key or query")
	case http.StatusRequestURITooLong:
		return h.answer(x, q.status, "keys have at most 255 bytes")
	case http.StatusMethodNotAllowed:
		return h.answer(x, q.status, "only GET, HEAD, PUT and DELETE are served")
	case http.StatusPreconditionFailed:
		return h.answer(x, q.status, "no times are kept: use If-Match")
	case http.StatusNotImplemented:
		return h.answer(x, q.status, "neither parts of a value nor conditions on a list are supported")
	}
	return h.answer(x, q.status, "want /k/{key} or /k?prefix=&after=&limit=")
}

// done answers without a body.
func (h *handler) done(x *httpd.Exchange, status int) error {
	b := append(h.out[:0], "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(append(b, ' '), http.StatusText(status)...)
	b = append(append(b, "\r\n"...), x.Form()...)
	if status != http.StatusNoContent { // RFC 9110, 8.6: no length with 204
		b = append(b, "Content-Length: 0\r\n"...)
	}
	h.out = append(b, "\r\n"...)
	return x.Reply(h.out)
}

// answer answers with a line of text.
func (h *handler) answer(x *httpd.Exchange, status int, text string) error {
	field := x.Form()
	if status == http.StatusMethodNotAllowed {
		field += "Allow: GET, HEAD, PUT, DELETE\r\n"
	}
	h.out = fmt.Appendf(h.out[:0], "HTTP/1.1 %d %s\r\n%sContent-Type: text/plain; charset=us-ascii\r\nContent-Length: %d\r\n\r\n",
		status, http.StatusText(status), field, len(text)+1)
	if x.Request().Method != http1.MethodHead {
		h.out = append(append(h.out, text...), '\n')
	}
	return x.Reply(h.out)
}

// failed answers for an error of the store. Only one that makes the store
// useless ends the server.
func (h *handler) failed(x *httpd.Exchange, err error) error {
	switch {
	case errors.Is(err, pmem.ErrIO), errors.Is(err, pmem.ErrClosed):
		return err
	case errors.Is(err, pmem.ErrFull):
		return h.answer(x, http.StatusInsufficientStorage, "no room in the pool")
	case errors.Is(err, kv.ErrValueTooLong):
		return h.answer(x, http.StatusRequestEntityTooLarge, "value is too large for the pool")
	case errors.Is(err, pmem.ErrChecksum), errors.Is(err, pmem.ErrDamaged):
		h.log.Error("damaged data", "err", err)
		return h.answer(x, http.StatusInternalServerError, "the value is damaged")
	}
	h.log.Error("request failed", "err", err)
	return h.answer(x, http.StatusInternalServerError, "internal error")
}
