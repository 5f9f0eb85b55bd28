package http1

import "math"

// The fields whose values a Request has.
const (
	keptMatch = iota
	keptNoneMatch
	keptLastEvent
	keptIdempotency
	keptRange
	keptIfRange
	keptType
	kept
)

// span is where the value of a field lies in the header, which MaxHeader makes short
// enough for 16 bits. An end of 0 says that there is no such field.
type span struct{ start, end uint16 }

// keep notes where the value of a field is that may be there only once.
func (p *Parser) keep(field, start, end int, repeated *Error) *Error {
	at := &p.values[field]
	if at.end != 0 {
		return repeated
	}
	*at = span{uint16(start), uint16(end)}
	return nil
}

// value returns the value of a field in a header; nil if there is none.
func (p *Parser) value(b []byte, field int) []byte {
	at := p.values[field]
	if at.end == 0 {
		return nil
	}
	return b[at.start:at.end:at.end]
}

// known looks at one header field, with its name in b[nameOff:nameEnd] and its value in
// b[start:end]; only those matter here that decide about the connection, the message boundary
// and whether the request may be served.
func (p *Parser) known(b []byte, nameOff, nameEnd, start, end int) *Error {
	name, value := b[nameOff:nameEnd], b[start:end]
	switch len(name) {
	case len("content-range"):
		if foldEqual(name, "content-range") {
			p.Request.ContentRange = true
		}
	case len("if-unmodified-since"):
		if foldEqual(name, "if-unmodified-since") {
			p.Request.IfUnmodifiedSince = true
		}
	case len("content-encoding"):
		if foldEqual(name, "content-encoding") {
			p.Request.ContentEncoding = true
		}
	case len("host"):
		if foldEqual(name, "host") {
			if p.seen&seenHost != 0 {
				return ErrHost
			}
			p.seen |= seenHost
		}
	case len("expect"):
		if foldEqual(name, "expect") {
			if !foldEqual(value, "100-continue") {
				return ErrExpect
			}
			p.Request.ExpectContinue = true
		}
	case len("connection"):
		if foldEqual(name, "connection") {
			p.connection(value)
		}
	case len("content-length"):
		if foldEqual(name, "content-length") {
			if p.seen&(seenLength|seenEncoding) != 0 {
				return ErrRepeatedLength
			}
			p.seen |= seenLength
			n, ok := decimal(value)
			if !ok {
				return ErrContentLength
			}
			p.Request.ContentLength = n
		}
	case len("transfer-encoding"):
		if foldEqual(name, "transfer-encoding") {
			if p.seen&(seenLength|seenEncoding) != 0 {
				return ErrRepeatedLength
			}
			p.seen |= seenEncoding
			if p.Request.Minor == 0 {
				return ErrChunkedHTTP10
			}
			if !foldEqual(value, "chunked") {
				return ErrTransferEncoding
			}
			p.Request.Chunked = true
			p.Request.ContentLength = -1
		}
	}
	return p.keepKnown(name, start, end)
}

// keepKnown notes where the value of a field is that a Request has.
func (p *Parser) keepKnown(name []byte, start, end int) *Error {
	switch len(name) {
	case len("if-match"):
		if foldEqual(name, "if-match") {
			return p.keep(keptMatch, start, end, ErrRepeatedCondition)
		}
		if foldEqual(name, "if-range") {
			return p.keep(keptIfRange, start, end, ErrRepeatedField)
		}
	case len("if-none-match"):
		if foldEqual(name, "if-none-match") {
			return p.keep(keptNoneMatch, start, end, ErrRepeatedCondition)
		}
		if foldEqual(name, "last-event-id") {
			p.values[keptLastEvent] = span{uint16(start), uint16(end)}
		}
	case len("idempotency-key"):
		if foldEqual(name, "idempotency-key") {
			return p.keep(keptIdempotency, start, end, ErrRepeatedField)
		}
	case len("range"):
		if foldEqual(name, "range") {
			return p.keep(keptRange, start, end, ErrRepeatedField)
		}
	case len("content-type"):
		if foldEqual(name, "content-type") {
			return p.keep(keptType, start, end, ErrRepeatedField)
		}
	}
	return nil
}

// connection notes the options of one Connection field, a comma-separated list.
func (p *Parser) connection(v []byte) {
	for len(v) > 0 {
		i := 0
		for i < len(v) && v[i] != ',' {
			i++
		}
		option := trim(v[:i])
		switch {
		case foldEqual(option, "close"):
			p.seen |= seenClose
		case foldEqual(option, "keep-alive"):
			p.seen |= seenKeepAlive
		}
		if i == len(v) {
			return
		}
		v = v[i+1:]
	}
}

// finish draws the conclusions when the header, which lies in b, is complete.
func (p *Parser) finish(b []byte) *Error {
	r := &p.Request
	r.Target = b[p.targetOff : p.targetOff+p.targetLen]
	r.IfMatch, r.IfNoneMatch = p.value(b, keptMatch), p.value(b, keptNoneMatch)
	r.LastEventID, r.IdempotencyKey = p.value(b, keptLastEvent), p.value(b, keptIdempotency)
	r.Range, r.IfRange, r.ContentType = p.value(b, keptRange), p.value(b, keptIfRange), p.value(b, keptType)
	if r.Minor == 0 {
		r.KeepAlive = p.seen&(seenKeepAlive|seenClose) == seenKeepAlive
		r.ExpectContinue = false // an HTTP/1.0 client knows no 1xx (RFC 9110, 10.1.1)
	} else {
		if p.seen&seenHost == 0 {
			return ErrHost
		}
		r.KeepAlive = p.seen&seenClose == 0
	}
	if r.Chunked {
		p.startChunk()
		return nil
	}
	p.remain = r.ContentLength
	p.state = stateBody
	return nil
}

// foldEqual compares without regard to ASCII case; s is in lower case.
func foldEqual(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := b[i]
		if c-'A' < 26 {
			c |= 0x20
		}
		if c != s[i] {
			return false
		}
	}
	return true
}

// decimal converts a non-empty string of digits; signs, blanks, lists and overflow are refused.
func decimal(b []byte) (int64, bool) {
	if len(b) == 0 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		d := int64(c) - '0'
		if d < 0 || d > 9 || n > (math.MaxInt64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// field finds the parts of the header field that starts at b[i]: name b[i:nameEnd], value
// b[start:end] without surrounding blanks, and the start of the next line. next is 0 if b ends
// before the line does.
func field(b []byte, i int) (nameEnd, start, end, next int, err *Error) {
	first := i
	for i < len(b) && class[b[i]]&isToken != 0 {
		i++
	}
	if i == len(b) {
		return 0, 0, 0, 0, nil
	}
	if b[i] != ':' || i == first {
		if b[i] == '\n' {
			return 0, 0, 0, 0, ErrBareLF
		}
		return 0, 0, 0, 0, ErrField
	}
	nameEnd = i
	for i++; i < len(b) && (b[i] == ' ' || b[i] == '\t'); {
		i++
	}
	start = i
	for {
		i = skipVisible(b, i)
		if i == len(b) {
			return 0, 0, 0, 0, nil
		}
		if b[i] != '\t' {
			break
		}
		i++
	}
	end = i
	if b[i] != '\r' {
		if b[i] == '\n' {
			return 0, 0, 0, 0, ErrBareLF
		}
		return 0, 0, 0, 0, ErrField
	}
	if i+1 == len(b) {
		return 0, 0, 0, 0, nil
	}
	if b[i+1] != '\n' {
		return 0, 0, 0, 0, ErrField
	}
	for end > start && (b[end-1] == ' ' || b[end-1] == '\t') {
		end--
	}
	return nameEnd, start, end, i + 2, nil
}
