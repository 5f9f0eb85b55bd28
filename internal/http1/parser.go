package http1

import "bytes"

// MaxHeader is the largest header, in bytes from the first byte of the request line to the empty
// line included, that a Parser accepts. Trailers of a chunked body have the same limit.
const MaxHeader = 8 << 10

// Method is a request method.
type Method uint8

// The methods that servers here tell apart; everything else that is a valid token is MethodOther.
const (
	MethodOther Method = iota
	MethodGet
	MethodHead
	MethodPost
	MethodPut
	MethodDelete
	MethodOptions
	MethodConnect
)

// Event tells what a call of Feed has found; several bits may be set at once.
type Event uint8

const (
	// Headers: the header is complete and Parser.Request is valid until the next Feed.
	Headers Event = 1 << iota
	// Body: the returned body is not empty.
	Body
	// Done: the message is complete; the next byte belongs to the next request.
	Done
)

// Request is what a header said.
type Request struct {
	// Target is the request target as sent. It lies in the input or in the Parser's own buffer
	// and is valid until the next Feed.
	Target []byte
	// ContentLength is the length of the body in bytes, 0 if there is none, -1 if it is chunked.
	ContentLength int64
	Method        Method
	Minor         uint8 // HTTP/1.Minor: 0 or 1
	// KeepAlive: the client lets the connection be used for another request.
	KeepAlive bool
	// ExpectContinue: the client waits for "100 Continue" before it sends the body.
	ExpectContinue bool
	Chunked        bool

	// Conditions on which the client wants the request to be served. The two
	// lists are as sent, valid as Target is, and nil if there are none.
	IfMatch, IfNoneMatch []byte
	IfUnmodifiedSince    bool // there is one
	// LastEventID is the Last-Event-ID of a client that follows events again; valid as
	// Target is.
	LastEventID []byte
	// ContentRange: the body is only a part of what the target is to become.
	ContentRange bool
	// ContentEncoding: the body is coded in a way that the client wants to be known.
	ContentEncoding bool

	// Fields as sent, valid as Target is, and nil if there are none.
	IdempotencyKey, Range, IfRange, ContentType []byte
}

// Parser is the state of one connection. The zero value is ready for the first request. It must
// not be used by two goroutines at once.
type Parser struct {
	Request Request

	state  state
	seen   seen
	remain int64 // bytes left of the body or of the chunk

	// Header in progress. pos is the start of the first line that was not parsed yet; it and
	// target index the piece the header lies in: the input, or buf once the header is split.
	pos       int
	targetOff int
	targetLen int
	values    [kept]span
	buf       []byte

	digits  uint8 // of a chunk size
	overrun int   // bytes of the chunk extension, or of the trailers
	err     *Error
}

type state uint8

const (
	stateLine state = iota // expecting a request line
	stateFields
	stateBody
	stateChunkSize
	stateChunkExt
	stateChunkSizeLF
	stateChunkData
	stateChunkCR
	stateChunkLF
	stateTrailers
	stateFailed
)

type seen uint8

const (
	seenHost seen = 1 << iota
	seenLength
	seenEncoding
	seenClose
	seenKeepAlive
)

// Reset makes the Parser ready for a new connection. It keeps its buffer.
func (p *Parser) Reset() {
	*p = Parser{buf: p.buf[:0]}
}

// Idle reports whether the Parser stands between two requests, with no byte of the next one seen.
func (p *Parser) Idle() bool { return p.state == stateLine && len(p.buf) == 0 }

// Failed reports whether an earlier Feed returned an error.
func (p *Parser) Failed() bool { return p.state == stateFailed }

// Feed parses a prefix of b and returns its length n and what it held. If ev has Body, body is
// the part b[n-len(body):n], without any framing. Feed stops after each message and each piece
// of body, so call it again with b[n:] until b is used up; no event is ever left over for a call
// with an empty b. An error is final: every later call returns it again.
func (p *Parser) Feed(b []byte) (n int, body []byte, ev Event, err *Error) {
	if p.state <= stateFields {
		if n, err = p.head(b); err != nil {
			p.state, p.err = stateFailed, err
			return n, nil, 0, err
		}
		if p.state <= stateFields {
			return n, nil, 0, nil
		}
		ev = Headers
		if p.Request.Chunked {
			return n, nil, ev, nil
		}
		if p.remain == 0 {
			p.state = stateLine
			return n, nil, Headers | Done, nil
		}
	}
	if p.state == stateBody {
		rest := b[n:]
		if int64(len(rest)) > p.remain {
			rest = rest[:p.remain]
		}
		if len(rest) == 0 {
			return n, nil, ev, nil
		}
		n += len(rest)
		p.remain -= int64(len(rest))
		ev |= Body
		if p.remain == 0 {
			p.state = stateLine
			ev |= Done
		}
		return n, rest, ev, nil
	}
	if p.state == stateFailed {
		return 0, nil, 0, p.err
	}
	n, body, ev, err = p.chunked(b)
	if err != nil {
		p.state, p.err = stateFailed, err
	}
	return n, body, ev, err
}

// head consumes header bytes and returns how many. When the header is complete it leaves the
// state that reads the body.
func (p *Parser) head(b []byte) (int, *Error) {
	if len(p.buf) > 0 {
		return p.headSplit(b)
	}
	in := b
	if len(in) > MaxHeader {
		in = in[:MaxHeader]
	}
	p.pos = 0
	done, err := p.lines(in)
	if err != nil {
		return 0, err
	}
	if done {
		return p.pos, nil
	}
	if len(in) == MaxHeader {
		return 0, ErrHeaderTooLarge
	}
	if p.buf == nil {
		p.buf = make([]byte, 0, MaxHeader)
	}
	p.buf = append(p.buf, in...)
	return len(in), nil
}

// headSplit continues a header whose beginning is in p.buf.
func (p *Parser) headSplit(b []byte) (int, *Error) {
	old := len(p.buf)
	in := b[:min(len(b), MaxHeader-old)]
	// Lines are looked at only when one has been completed, so that a header that trickles in
	// byte by byte costs no more than its length.
	p.buf = append(p.buf, in...)
	if bytes.IndexByte(in, '\n') >= 0 {
		done, err := p.lines(p.buf)
		if err != nil {
			return 0, err
		}
		if done {
			n := p.pos - old
			// The target stays readable: truncating does not overwrite it.
			p.buf = p.buf[:0]
			return n, nil
		}
	}
	if len(p.buf) == MaxHeader {
		return 0, ErrHeaderTooLarge
	}
	return len(in), nil
}

// lines parses the complete lines of b from p.pos on and reports whether the empty line was
// among them.
func (p *Parser) lines(b []byte) (done bool, err *Error) {
	if p.state == stateLine {
		ok, err := p.requestLine(b)
		if !ok || err != nil {
			return false, err
		}
		p.state = stateFields
	}
	for {
		i := p.pos
		if i >= len(b) {
			return false, nil
		}
		if b[i] == '\r' {
			if i+1 == len(b) {
				return false, nil
			}
			if b[i+1] != '\n' {
				return false, ErrField
			}
			p.pos = i + 2
			return true, p.finish(b)
		}
		nameEnd, start, end, next, err := field(b, i)
		if next == 0 || err != nil {
			return false, err
		}
		if err := p.known(b, i, nameEnd, start, end); err != nil {
			return false, err
		}
		p.pos = next
	}
}

// requestLine parses "METHOD SP target SP HTTP/1.x CRLF"; ok is false if b ends before it.
func (p *Parser) requestLine(b []byte) (ok bool, err *Error) {
	i := p.pos
	for i < len(b) && b[i] == '\r' { // empty lines before a request are ignored (RFC 9112, 2.2)
		if i+1 == len(b) {
			return false, nil
		}
		if b[i+1] != '\n' {
			return false, ErrRequestLine
		}
		i += 2
		p.pos = i
	}
	start := i
	for i < len(b) && class[b[i]]&isToken != 0 {
		i++
	}
	if i == len(b) {
		return false, nil
	}
	if b[i] != ' ' || i == start {
		if b[i] == '\n' {
			return false, ErrBareLF
		}
		return false, ErrRequestLine
	}
	method := methodOf(b[start:i])
	i++
	target := i
	i = skipTarget(b, i)
	if i == len(b) {
		return false, nil
	}
	if b[i] != ' ' || i == target {
		return false, ErrRequestLine
	}
	end := i
	i++
	const version = "HTTP/1.1\r\n"
	if len(b)-i < len(version) {
		// A line that ends early gets its answer at once: nothing more may come.
		if bytes.IndexByte(b[i:], '\n') >= 0 {
			return false, ErrRequestLine
		}
		return false, nil
	}
	v := b[i : i+len(version)]
	if string(v[:5]) != "HTTP/" || v[5]-'0' > 9 || v[6] != '.' || v[7]-'0' > 9 || v[8] != '\r' || v[9] != '\n' {
		return false, ErrRequestLine
	}
	if v[5] != '1' || v[7] > '1' {
		return false, ErrVersion
	}
	p.Request = Request{Method: method, Minor: v[7] - '0'}
	p.seen = 0
	p.targetOff, p.targetLen = target, end-target
	p.values = [kept]span{}
	p.pos = i + len(version)
	return true, nil
}
