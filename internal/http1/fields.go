package http1

import "math"

// known looks at one header field, with its name in b[nameOff:nameEnd] and its value in
// b[start:end]; only those matter here that decide about the connection, the message boundary
// and whether the request may be served.
func (p *Parser) known(b []byte, nameOff, nameEnd, start, end int) *Error {
	name, value := b[nameOff:nameEnd], b[start:end]
	switch len(name) {
	case len("if-match"):
		if foldEqual(name, "if-match") {
			return condition(&p.match, start, end)
		}
	case len("if-none-match"):
		if foldEqual(name, "if-none-match") {
			return condition(&p.noneMatch, start, end)
		}
		if foldEqual(name, "content-range") {
			p.Request.ContentRange = true
		}
		if foldEqual(name, "last-event-id") {
			p.lastEvent = [2]int{start, end}
		}
	case len("if-unmodified-since"):
		if foldEqual(name, "if-unmodified-since") {
			p.Request.IfUnmodifiedSince = true
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
	return nil
}

// condition notes where a list of entity tags is. It may be in several fields, which nobody does.
func condition(at *[2]int, start, end int) *Error {
	if at[1] != 0 {
		return ErrRepeatedCondition
	}
	*at = [2]int{start, end}
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
	if m := p.match; m[1] != 0 {
		r.IfMatch = b[m[0]:m[1]:m[1]]
	}
	if m := p.noneMatch; m[1] != 0 {
		r.IfNoneMatch = b[m[0]:m[1]:m[1]]
	}
	if m := p.lastEvent; m[1] != 0 {
		r.LastEventID = b[m[0]:m[1]:m[1]]
	}
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
