package http1

import (
	"testing"

	"github.com/go-quicktest/qt"
)

// Conditions are found wherever the header is cut.
func TestConditions(t *testing.T) {
	const in = "PUT /k/x HTTP/1.1\r\nHost: x\r\nIf-Match: \"a\", \"b\"\r\nIF-NONE-MATCH:*\r\nIf-Unmodified-Since: now\r\ncontent-range: bytes 0-1/5\r\nContent-Length: 0\r\n\r\n"
	for size := 1; size <= len(in); size++ {
		var p Parser
		var done bool
		for _, piece := range pieces(in+get, size) {
			for len(piece) > 0 && !done {
				n, _, ev, err := p.Feed(piece)
				qt.Assert(t, qt.IsNil(err))
				piece = piece[n:]
				if ev&Headers != 0 {
					r := &p.Request
					qt.Check(t, qt.Equals(string(r.IfMatch), `"a", "b"`))
					qt.Check(t, qt.Equals(string(r.IfNoneMatch), "*"))
					qt.Check(t, qt.IsTrue(r.IfUnmodifiedSince))
					qt.Check(t, qt.IsTrue(r.ContentRange))
					done = true
				}
			}
		}
		qt.Assert(t, qt.IsTrue(done))
	}
	// The next request has none.
	var p Parser
	_, _, _, err := p.Feed([]byte(in))
	qt.Assert(t, qt.IsNil(err))
	_, _, _, err = p.Feed([]byte(get))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.IsNil(p.Request.IfMatch))
	qt.Check(t, qt.IsNil(p.Request.IfNoneMatch))
	qt.Check(t, qt.IsFalse(p.Request.IfUnmodifiedSince))

	p.Reset()
	_, _, _, err = p.Feed([]byte("GET / HTTP/1.1\r\nHost: x\r\nIf-Match: \"a\"\r\nIf-Match: \"b\"\r\n\r\n"))
	qt.Check(t, qt.Equals(err, ErrRepeatedCondition))
}

// So are the other fields that servers look at; a second one is refused.
func TestKeptFields(t *testing.T) {
	const in = "PUT /k/x HTTP/1.1\r\nHost: x\r\nContent-type: text/plain\r\ncontent-Encoding: gzip\r\nRANGE: bytes=0-1\r\nIf-Range: \"a\"\r\nIdempotency-Key: \"k 1\" \r\nContent-Length: 0\r\n\r\n"
	for size := 1; size <= len(in); size++ {
		var p Parser
		headers := 0
		for _, piece := range pieces(in+get, size) {
			for len(piece) > 0 {
				n, _, ev, err := p.Feed(piece)
				qt.Assert(t, qt.IsNil(err))
				piece = piece[n:]
				if ev&Headers == 0 {
					continue
				}
				r := &p.Request
				qt.Check(t, qt.Equals(r.ContentEncoding, headers == 0))
				want := []string{"text/plain", "bytes=0-1", `"a"`, `"k 1"`}
				if headers++; headers == 2 {
					want = []string{"", "", "", ""}
				}
				qt.Check(t, qt.DeepEquals([]string{string(r.ContentType), string(r.Range), string(r.IfRange), string(r.IdempotencyKey)}, want))
			}
		}
		qt.Assert(t, qt.Equals(headers, 2))
	}
	for _, name := range []string{"Content-Type", "Range", "If-Range", "Idempotency-Key"} {
		var p Parser
		_, _, _, err := p.Feed([]byte("GET / HTTP/1.1\r\nHost: x\r\n" + name + ": a\r\n" + name + ": a\r\n\r\n"))
		qt.Check(t, qt.Equals(err, ErrRepeatedField), qt.Commentf("%s", name))
	}
}
