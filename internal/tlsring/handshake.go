package tlsring

import (
	"crypto/tls"
	"errors"
)

// event is what a handshake tells the ring.
type event struct {
	c    *conn
	over bool // else it has written something
	err  error
}

// tell is called by the goroutine of a handshake.
func (r *Ring) tell(e event) {
	r.mu.Lock()
	r.events = append(r.events, e)
	r.mu.Unlock()
	r.Inner.Wake()
}

// handshaken sees to what handshakes have told.
func (r *Ring) handshaken() error {
	r.mu.Lock()
	events := r.events
	r.events = r.spare[:0]
	r.mu.Unlock()
	var errs []error
	for _, e := range events {
		c := e.c
		if c.gone {
			continue
		}
		if out := c.wire.takeOut(); len(out) > 0 {
			errs = append(errs, r.send(c, out))
		}
		if e.over {
			errs = append(errs, r.over(c, e.err))
		}
	}
	clear(events)
	r.spare = events
	if err := errors.Join(errs...); err != nil || len(events) == 0 {
		return err
	}
	return r.push() // the peers wait for it
}

// httpToHTTPS is the answer to who speaks HTTP without TLS, as that of net/http.
const httpToHTTPS = "HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\nthis port speaks TLS: use https\n"

// over ends a handshake. What has arrived behind it is looked at next.
func (r *Ring) over(c *conn, err error) error {
	c.wire.finish()
	if c.held {
		c.held = false
		_ = r.Inner.Release(c.fd) // it is registered, so it cannot fail
	}
	r.later(c)
	if err == nil {
		c.open = true
		return nil
	}
	r.fail(c, err)
	var notTLS tls.RecordHeaderError
	if errors.As(err, &notTLS) && notTLS.Conn != nil && looksLikeHTTP(notTLS.RecordHeader[:]) {
		return r.send(c, []byte(httpToHTTPS))
	}
	return nil
}

// looksLikeHTTP knows the beginning of a request by its first bytes.
func looksLikeHTTP(b []byte) bool {
	for _, c := range b {
		if (c < 'A' || c > 'Z') && c != ' ' && c != '/' {
			return false
		}
	}
	return true
}
