package http1

// maxChunkExt bounds the extensions of one chunk, in bytes. Nobody sends any, and without a
// bound they would let a client make the server read without end.
const maxChunkExt = 256

// startChunk expects the size line of a chunk next.
func (p *Parser) startChunk() {
	p.state = stateChunkSize
	p.remain = 0
	p.digits = 0
	p.overrun = 0
}

// chunked walks over framing until it meets payload, the end of the message or the end of b.
func (p *Parser) chunked(b []byte) (n int, body []byte, ev Event, err *Error) {
	for n < len(b) {
		c := b[n]
		switch p.state {
		case stateChunkSize:
			if !p.chunkSize(c) {
				return n, nil, 0, ErrChunk
			}
			if p.state == stateChunkExt {
				continue // c is not a digit, and is looked at again
			}
			n++
		case stateChunkExt:
			if !p.chunkExt(c) {
				return n, nil, 0, ErrChunk
			}
			n++
		case stateChunkSizeLF:
			if c != '\n' {
				return n, nil, 0, ErrChunk
			}
			n++
			if p.remain > 0 {
				p.state = stateChunkData
				continue
			}
			p.state = stateTrailers
			p.overrun = 0
			p.buf = p.buf[:0]
		case stateChunkData:
			rest := b[n:]
			if int64(len(rest)) > p.remain {
				rest = rest[:p.remain]
			}
			p.remain -= int64(len(rest))
			if p.remain == 0 {
				p.state = stateChunkCR
			}
			return n + len(rest), rest, Body, nil
		case stateChunkCR:
			if c != '\r' {
				return n, nil, 0, ErrChunk
			}
			p.state = stateChunkLF
			n++
		case stateChunkLF:
			if c != '\n' {
				return n, nil, 0, ErrChunk
			}
			p.startChunk()
			n++
		case stateTrailers:
			done, err := p.trailer(c)
			if err != nil {
				return n, nil, 0, err
			}
			n++
			if done {
				p.state = stateLine
				return n, nil, Done, nil
			}
		default:
			panic("http1: chunked called in a wrong state")
		}
	}
	return n, nil, 0, nil
}

// chunkSize takes a byte of a chunk's size, or finds that the size has ended
// before it; ok is false if neither can be.
func (p *Parser) chunkSize(c byte) (ok bool) {
	if d, ok := hexDigit(c); ok {
		if p.digits == 15 { // 60 bits: more can only be an attack
			return false
		}
		p.digits++
		p.remain = p.remain<<4 | int64(d)
		return true
	}
	p.state = stateChunkExt
	return p.digits > 0 && (c == '\r' || c == ';')
}

// chunkExt takes a byte of a chunk's extension, which means nothing here.
func (p *Parser) chunkExt(c byte) (ok bool) {
	if c == '\r' {
		p.state = stateChunkSizeLF
		return true
	}
	p.overrun++
	return p.overrun <= maxChunkExt && (c == '\t' || class[c]&isVisible != 0)
}

// trailer takes one byte of the trailer section, which is checked and dropped: none of its
// fields may matter to the message's boundary.
func (p *Parser) trailer(c byte) (done bool, err *Error) {
	p.overrun++
	if p.overrun > MaxHeader {
		return false, ErrHeaderTooLarge
	}
	p.buf = append(p.buf, c)
	if c != '\n' {
		return false, nil
	}
	if string(p.buf) == "\r\n" {
		p.buf = p.buf[:0]
		return true, nil
	}
	_, _, _, next, err := field(p.buf, 0)
	if err != nil {
		return false, err
	}
	if next != len(p.buf) {
		return false, ErrField
	}
	p.buf = p.buf[:0]
	return false, nil
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c-'0' < 10:
		return c - '0', true
	case c|0x20-'a' < 6:
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}
