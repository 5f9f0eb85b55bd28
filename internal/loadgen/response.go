package loadgen

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

const maxHeader = 16 << 10

// response parses the responses of one connection, in whatever pieces they
// arrive: status line and Content-Length, the body only counted.
type response struct {
	status  int
	length  int64 // of the body
	closing bool  // "Connection: close"

	inBody bool
	left   int64 // of the body
	head   []byte
	known  [2]known
	kind   uint8 // which of known the response is likely to equal
}

// known is the last header of its kind that came in one piece: usually all are
// equal.
type known struct {
	head    []byte
	status  int
	length  int64
	closing bool
}

// reset forgets a response that was under way.
func (r *response) reset() { r.inBody, r.left, r.head = false, 0, r.head[:0] }

// feed reports whether b completes the response. Bytes behind it are an error, as
// nothing else was asked for.
func (r *response) feed(b []byte) (done bool, err error) {
	if !r.inBody {
		if k := &r.known[r.kind]; len(r.head) == 0 && len(k.head) > 0 && bytes.HasPrefix(b, k.head) {
			// The same bytes mean the same.
			b = b[len(k.head):]
			r.status, r.length, r.closing = k.status, k.length, k.closing
		} else {
			var n int
			n, err = r.header(b)
			if err != nil || n == 0 {
				return false, err
			}
			b = b[n:]
		}
		if r.status/100 == 1 { // 100 Continue and the like: the answer follows
			r.known[r.kind].head = r.known[r.kind].head[:0]
			if len(b) == 0 {
				return false, nil
			}
			return r.feed(b)
		}
		r.inBody, r.left = true, r.length
	}
	if int64(len(b)) > r.left {
		return false, fmt.Errorf("%d bytes behind the response", int64(len(b))-r.left)
	}
	r.left -= int64(len(b))
	if r.left > 0 {
		return false, nil
	}
	r.inBody = false
	return true, nil
}

// header consumes up to the empty line and returns how many bytes of b that
// were, 0 when the end has not come yet.
func (r *response) header(b []byte) (int, error) {
	had := len(r.head)
	h := b
	if had > 0 {
		r.head = append(r.head, b...)
		h = r.head
	}
	i := bytes.Index(h, []byte("\r\n\r\n"))
	if i < 0 {
		if len(h) > maxHeader {
			return 0, errors.New("response header too large")
		}
		if had == 0 {
			r.head = append(r.head, b...)
		}
		return 0, nil
	}
	h = h[:i+4]
	if err := r.parse(h[:i+2]); err != nil {
		return 0, err
	}
	if had == 0 {
		k := &r.known[r.kind]
		k.head = append(k.head[:0], h...)
		k.status, k.length, k.closing = r.status, r.length, r.closing
	}
	r.head = r.head[:0]
	return len(h) - had, nil
}

// parse takes status line and fields, each with its CRLF.
func (r *response) parse(h []byte) error {
	line, rest, _ := bytes.Cut(h, []byte("\r\n"))
	// "HTTP/1.1 200 OK"
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' {
		return fmt.Errorf("malformed status line %.40q", line)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil || status < 100 || len(line) > 12 && line[12] != ' ' {
		return fmt.Errorf("malformed status line %.40q", line)
	}
	length := int64(-1)
	closing := false
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return fmt.Errorf("malformed response field %.40q", line)
		}
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.ParseInt(string(value), 10, 64); err != nil || length < 0 {
				return fmt.Errorf("malformed Content-Length %.40q", value)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			return fmt.Errorf("response with Transfer-Encoding %.40q, want Content-Length", value)
		case bytes.EqualFold(name, []byte("Connection")):
			closing = bytes.EqualFold(value, []byte("close"))
		}
	}
	if length < 0 {
		if status/100 != 1 && status != 204 && status != 304 {
			return errors.New("response without Content-Length")
		}
		length = 0
	}
	r.status, r.length, r.closing = status, length, closing
	return nil
}
