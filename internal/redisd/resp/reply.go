package resp

import (
	"math"
	"strconv"

	"github.com/pastenet/paste/pmem"
)

// Reply is what is sent to a client: bytes, and pieces of frames that are sent
// from where they lie. Each method appends one reply, or the head of one that has
// others in it.
type Reply struct {
	V3 bool // the client speaks RESP3
	B  []byte
	// Refs are pieces that come before B[At], in order.
	Refs []Ref
}

// Ref is a piece of a frame in a reply, which owns a reference to the frame.
type Ref struct {
	At   int
	Frag pmem.Fragment
}

// Len is the number of bytes of a reply, about.
func (r *Reply) Len() int { return len(r.B) + 1024*len(r.Refs) }

// Frame puts a piece of a frame into the reply.
func (r *Reply) Frame(f pmem.Fragment) { r.Refs = append(r.Refs, Ref{len(r.B), f}) }

// Raw appends bytes that are a reply already.
func (r *Reply) Raw(b []byte) { r.B = append(r.B, b...) }

func (r *Reply) head(kind byte, n int64) {
	r.B = append(r.B, kind)
	if uint64(n) < 10 {
		r.B = append(r.B, byte('0'+n), '\r', '\n')
		return
	}
	r.B = append(strconv.AppendInt(r.B, n, 10), '\r', '\n')
}

// OK is the status "OK".
func (r *Reply) OK() { r.B = append(r.B, "+OK\r\n"...) }

// Status appends a simple string.
func (r *Reply) Status(s string) {
	r.B = append(append(append(r.B, '+'), s...), '\r', '\n')
}

// Error appends an error whose text begins with its kind, such as "ERR". Line
// breaks in it become blanks.
func (r *Reply) Error(text string) {
	r.B = append(r.B, '-')
	from := len(r.B)
	r.B = append(r.B, text...)
	for i := from; i < len(r.B); i++ {
		if r.B[i] == '\r' || r.B[i] == '\n' {
			r.B[i] = ' '
		}
	}
	r.B = append(r.B, '\r', '\n')
}

// Int appends an integer.
func (r *Reply) Int(n int64) { r.head(':', n) }

// Flag appends 1 or 0.
func (r *Reply) Flag(is bool) {
	if is {
		r.Int(1)
	} else {
		r.Int(0)
	}
}

// Bulk appends a string of any bytes.
func (r *Reply) Bulk(b []byte) {
	r.head('$', int64(len(b)))
	r.B = append(append(r.B, b...), '\r', '\n')
}

// Text is Bulk of a string.
func (r *Reply) Text(s string) {
	r.head('$', int64(len(s)))
	r.B = append(append(r.B, s...), '\r', '\n')
}

// BulkHead appends the head of a string of n bytes; these and a line break follow.
func (r *Reply) BulkHead(n int64) { r.head('$', n) }

// Verbatim appends text for people, which RESP3 marks as such.
func (r *Reply) Verbatim(s string) {
	if !r.V3 {
		r.Text(s)
		return
	}
	r.head('=', int64(len(s)+4))
	r.B = append(append(append(r.B, "txt:"...), s...), '\r', '\n')
}

// Null appends what stands for no string, or for nothing.
func (r *Reply) Null() {
	if r.V3 {
		r.B = append(r.B, "_\r\n"...)
		return
	}
	r.B = append(r.B, "$-1\r\n"...)
}

// NullArray appends what stands for no array.
func (r *Reply) NullArray() {
	if r.V3 {
		r.B = append(r.B, "_\r\n"...)
		return
	}
	r.B = append(r.B, "*-1\r\n"...)
}

// Array begins an array of n replies.
func (r *Reply) Array(n int) { r.head('*', int64(n)) }

// Map begins a map of n pairs, which RESP2 has as an array.
func (r *Reply) Map(n int) {
	if r.V3 {
		r.head('%', int64(n))
		return
	}
	r.head('*', int64(2*n))
}

// Set begins a set of n replies.
func (r *Reply) Set(n int) {
	if r.V3 {
		r.head('~', int64(n))
		return
	}
	r.head('*', int64(n))
}

// Double appends a floating-point number.
func (r *Reply) Double(f float64) {
	if !r.V3 {
		r.Bulk(AppendFloat(nil, f))
		return
	}
	r.B = append(AppendFloat(append(r.B, ','), f), '\r', '\n')
}

// Later keeps room for the head of an array whose length is known later; SetLater
// fills it in.
func (r *Reply) Later() (at int) {
	at = len(r.B)
	r.B = append(r.B, "*0000000000\r\n"...)
	return at
}

// SetLater says how many replies follow the head at byte at, and of which kind
// ('*', '%', '~') it is. It moves what follows, so it is for replies without Refs.
func (r *Reply) SetLater(at int, kind byte, n int) {
	var head [16]byte
	h := append(strconv.AppendInt(append(head[:0], kind), int64(n), 10), '\r', '\n')
	const room = len("*0000000000\r\n")
	copy(r.B[at:], h)
	copy(r.B[at+len(h):], r.B[at+room:])
	cut := room - len(h)
	r.B = r.B[:len(r.B)-cut]
	for i := range r.Refs {
		if r.Refs[i].At > at {
			r.Refs[i].At -= cut
		}
	}
}

// AppendFloat renders a number as Redis does: no exponent unless it is very large
// or very small.
func AppendFloat(b []byte, f float64) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(b, "inf"...)
	case math.IsInf(f, -1):
		return append(b, "-inf"...)
	}
	return strconv.AppendFloat(b, f, 'g', 17, 64)
}
