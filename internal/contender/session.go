package contender

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/pastenet/paste/internal/http1"
)

// replies are the complete responses, made once; or what is done instead.
type replies struct {
	get, head, stored, proceed []byte

	raw  Raw
	size int64 // of a raw request
}

func newReplies(cfg *Config) replies {
	n := cfg.ResponseBytes
	if cfg.Raw != NotRaw {
		return replies{stored: []byte("unused"), raw: cfg.Raw, size: max(int64(n), 1)}
	}
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", n)
	return replies{
		get:     []byte(head + strings.Repeat("x", n)),
		head:    []byte(head),
		stored:  []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
		proceed: []byte("HTTP/1.1 100 Continue\r\n\r\n"),
	}
}

func refusal(status int) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status, http.StatusText(status))
}

// sink is what a server does with the parts of requests.
type sink interface {
	// piece takes a part of a body that is stored; last says it is complete.
	piece(p []byte, last bool) error
	// reply sends a response behind those before it.
	reply(b []byte)
}

// session is the HTTP side of one connection.
type session struct {
	parser  http1.Parser
	length  int64 // of the body so far
	storing bool
	get     bool
	head    bool
	close   bool // after the replies
}

// feed handles received bytes and returns how many requests they completed. After
// close is set nothing more is to be fed.
func (s *session) feed(b []byte, r *replies, k sink) (requests uint64) {
	if r.raw != NotRaw {
		return s.feedRaw(b, r, k)
	}
	for len(b) > 0 && !s.close {
		n, body, ev, perr := s.parser.Feed(b)
		if perr != nil {
			s.refuse(perr.Status, k)
			return requests
		}
		b = b[n:]
		if ev&http1.Headers != 0 {
			req := &s.parser.Request
			s.length = 0
			s.get, s.head = req.Method == http1.MethodGet, req.Method == http1.MethodHead
			s.storing = req.Method == http1.MethodPost || req.Method == http1.MethodPut
			if !s.get && !s.head && !s.storing {
				s.refuse(http.StatusMethodNotAllowed, k)
				return requests
			}
			if req.ContentLength > bodyLimit {
				s.refuse(http.StatusRequestEntityTooLarge, k)
				return requests
			}
			if req.ExpectContinue && ev&http1.Done == 0 {
				k.reply(r.proceed)
			}
		}
		done := ev&http1.Done != 0
		s.length += int64(len(body))
		if s.length > bodyLimit {
			s.refuse(http.StatusRequestEntityTooLarge, k)
			return requests
		}
		if s.storing && (len(body) > 0 || done) {
			if err := k.piece(body, done); err != nil {
				s.refuse(http.StatusInsufficientStorage, k)
				return requests
			}
		}
		if !done {
			continue
		}
		requests++
		s.close = !s.parser.Request.KeepAlive
		switch {
		case s.storing:
			k.reply(r.stored)
		case s.head:
			k.reply(r.head)
		default:
			k.reply(r.get)
		}
	}
	return requests
}

func (s *session) feedRaw(b []byte, r *replies, k sink) (requests uint64) {
	if r.raw == Echo && len(b) > 0 {
		k.reply(b)
	}
	whole := s.length / r.size
	s.length += int64(len(b))
	return uint64(s.length/r.size - whole)
}

func (s *session) refuse(status int, k sink) {
	k.reply(refusal(status))
	s.close = true
}
