package kvd

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

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
	actBatch
)

// request is what is known of a connection's request in progress.
type request struct {
	act    action
	status int    // of actError
	text   string // why, if the status alone does not say it
	key    []byte
	list   list
	cond   conditions
	ttl    int64           // seconds; 0: for ever
	room   [kv.MaxKey]byte // of key

	rang, ifRange []byte // of a GET; nil: none
	ctype         []byte // of a PUT; nil: the default
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
	return newServer(cfg, store, hooks{})
}

// hooks are for tests; each may be nil.
type hooks struct {
	now  func() time.Time
	wrap func(httpd.Handler) httpd.Handler
}

func newServer(cfg httpd.Config, store *kv.Store, hook hooks) (*httpd.Server, error) {
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
	if hook.now != nil {
		shared.now = hook.now
	}
	if err := shared.expire.open(store.Pool()); err != nil {
		return nil, fmt.Errorf("new key-value server: %w", err)
	}
	srv, err := httpd.NewWithHandler(cfg, store.Pool(), func() httpd.Handler {
		h := &handler{store: store, shared: shared, log: log}
		if hook.wrap != nil {
			return hook.wrap(h)
		}
		return h
	})
	if err != nil {
		shared.expire.close()
		return nil, err
	}
	srv.OnClose(shared.expire.close)
	return srv, nil
}

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
	q.copyFields(x.Request())
	switch q.act {
	case actPut:
		x.SetHeadroom(maxHead + 24 + len(q.key))
		return true
	case actBatch:
		return x.Request().ContentLength <= maxBatchBytes
	}
	return false
}

// copyFields takes the fields of r that are about a value, whose bytes do not last.
func (q *request) copyFields(r *http1.Request) {
	q.rang, q.ifRange, q.ctype = nil, nil, nil
	switch q.act {
	case actGet:
		q.rang, q.ifRange = bytes.Clone(r.Range), bytes.Clone(r.IfRange)
	case actPut:
		if r.ContentEncoding {
			q.refuse(http.StatusUnsupportedMediaType, "no Content-Encoding is kept, so no reader would know of it")
		} else if len(r.ContentType) > maxType {
			q.refuse(http.StatusBadRequest, "a Content-Type has at most 100 bytes")
		} else if len(r.ContentType) > 0 && string(r.ContentType) != defaultType {
			q.ctype = bytes.Clone(r.ContentType)
		}
	}
}

// refuse has the request answered with a status and a text.
func (q *request) refuse(status int, text string) {
	q.act, q.status, q.text = actError, status, text
}

func (h *handler) parse(q *request, r *http1.Request) {
	q.act, q.status, q.text, q.ttl = actError, http.StatusNotFound, "", 0
	target := origin(r.Target)
	raw, ok := bytes.CutPrefix(target, []byte(keyPath))
	if !ok {
		path, query, _ := bytes.Cut(target, []byte("?"))
		if string(path) != listPath {
			return
		}
		if r.Method == http1.MethodPost {
			if q.act = actBatch; len(query) > 0 {
				q.refuse(http.StatusBadRequest, "a batch has no parameters")
			} else if r.IdempotencyKey != nil {
				q.refuse(http.StatusNotImplemented, "no Idempotency-Key is kept here: use if_match or if_none_match")
			}
			return
		}
		if r.Method != http1.MethodGet && r.Method != http1.MethodHead {
			q.refuse(http.StatusMethodNotAllowed, "GET and HEAD list keys, and POST is a batch")
			return
		}
		q.status = http.StatusBadRequest
		if q.list, ok = parseList(query); ok {
			q.act = actList
		}
		return
	}
	raw, query, _ := bytes.Cut(raw, []byte("?"))
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
	if len(query) > 0 && q.act != actError {
		q.parameters(query)
	}
}

// parameters reads what stands behind a key.
func (q *request) parameters(query []byte) {
	value, ok := bytes.CutPrefix(query, []byte("ttl="))
	if !ok || q.act != actPut {
		q.refuse(http.StatusBadRequest, "a key has no parameter but ttl, of PUT")
		return
	}
	ttl, err := strconv.ParseInt(string(value), 10, 64)
	if q.ttl = ttl; err != nil || ttl < 1 || ttl > maxTTL {
		q.refuse(http.StatusBadRequest, "ttl is a number of seconds, from 1 to 3153600000")
	}
}

// maxTTL is the longest time that a value may be given, in seconds: a century.
const maxTTL = 100 * 365 * 24 * 3600

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
	case actBatch:
		if full {
			return h.answer(x, http.StatusInsufficientStorage, "no room in the pool")
		}
		return h.batch(x)
	}
	if q.text != "" {
		return h.answer(x, q.status, q.text)
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

// done answers without a body. tag is that of what was stored, if it was.
func (h *handler) done(x *httpd.Exchange, status int, tag string) error {
	b := append(h.out[:0], "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(append(b, ' '), http.StatusText(status)...)
	b = append(append(b, "\r\n"...), x.Form()...)
	if tag != "" {
		b = append(append(append(b, tagField...), tag...), "\r\n"...)
	}
	if status != http.StatusNoContent { // RFC 9110, 8.6: no length with 204
		b = append(b, "Content-Length: 0\r\n"...)
	}
	h.out = append(b, "\r\n"...)
	return x.Reply(h.out)
}

// allowed has the methods for keys, and for lists.
var allowed = map[bool]string{true: "GET, HEAD, PUT, POST, DELETE", false: "GET, HEAD, POST"}

// answer answers with a line of text.
func (h *handler) answer(x *httpd.Exchange, status int, text string) error {
	field := x.Form()
	if status == http.StatusMethodNotAllowed {
		field += "Allow: " + allowed[x.State().(*request).text == ""] + "\r\n"
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
