package resp

import (
	"bytes"
	"fmt"
)

// Limits of requests, and what a Parser has by default.
const (
	MaxInline   = 64 << 10  // bytes of a line
	MaxArgs     = 1 << 20   // of a request
	MaxBulk     = 512 << 20 // bytes of an argument
	argsAtFirst = 8
)

// Error is a request that breaks the protocol: its text follows "-ERR " in the
// answer, behind which the connection is closed.
type Error string

func (e Error) Error() string { return string(e) }

// span is where an argument lies in the request.
type span struct{ from, to int }

// Parser finds the arguments of one request after the other. The zero value is
// ready for the first.
type Parser struct {
	MaxBulk int // bytes of an argument; 0: MaxBulk
	// AuthFirst refuses requests that are larger than what a client that is not
	// authenticated has to say.
	AuthFirst bool

	pos  int // of what comes next in the request
	left int // arguments that are missing, of a multi-bulk request; 0: none was begun
	bulk int // bytes of the argument that comes next, plus 1; 0: not known
	args []span
}

// Idle reports whether no request has begun.
func (p *Parser) Idle() bool { return p.pos == 0 && p.left == 0 }

// Need is how many bytes of the request there have to be, at least, before it is
// of use to parse again.
func (p *Parser) Need() int {
	if p.bulk > 0 {
		return p.pos + p.bulk + 1
	}
	return p.pos + 1
}

// Reset forgets the request that has begun.
func (p *Parser) Reset() { p.pos, p.left, p.bulk, p.args = 0, 0, 0, p.args[:0] }

// Next parses b, which begins where the request does: with what earlier calls
// for the same request were given, and more. It appends the arguments to args,
// which stay in b, and returns how many bytes the request has; 0 says that it is
// not complete. A request may have no arguments at all.
func (p *Parser) Next(b []byte, args [][]byte) (_ [][]byte, n int, err error) {
	if p.left == 0 {
		if len(b) == 0 {
			return args, 0, nil
		}
		if b[0] != '*' {
			return p.inline(b, args)
		}
		k, end, err := p.number(b, 1, "Protocol error: too big mbulk count string")
		if err != nil || end == 0 {
			return args, 0, err
		}
		switch {
		case k < -1<<31 || k > MaxArgs || k == badNumber:
			return args, 0, Error("Protocol error: invalid multibulk length")
		case p.AuthFirst && k > 10:
			return args, 0, Error("Protocol error: unauthenticated multibulk length")
		case k <= 0:
			p.Reset()
			return args, end, nil
		}
		p.pos, p.left = end, k
	}
	for p.left > 0 {
		if done, err := p.argument(b); err != nil || !done {
			return args, 0, err
		}
	}
	for _, s := range p.args {
		args = append(args, b[s.from:s.to:s.to])
	}
	n = p.pos
	p.Reset()
	return args, n, nil
}

// argument parses one of a multi-bulk request.
func (p *Parser) argument(b []byte) (done bool, err error) {
	if p.bulk == 0 {
		if p.pos >= len(b) {
			return false, nil
		}
		if b[p.pos] != '$' {
			return false, Error(fmt.Sprintf("Protocol error: expected '$', got '%c'", b[p.pos]))
		}
		k, end, err := p.number(b, p.pos+1, "Protocol error: too big bulk count string")
		if err != nil || end == 0 {
			return false, err
		}
		most := p.MaxBulk
		if most == 0 {
			most = MaxBulk
		}
		if k < 0 || k > most || k == badNumber {
			return false, Error("Protocol error: invalid bulk length")
		}
		if p.AuthFirst && k > 16384 {
			return false, Error("Protocol error: unauthenticated bulk length")
		}
		p.pos, p.bulk = end, k+1
	}
	end := p.pos + p.bulk - 1
	if end+2 > len(b) {
		return false, nil
	}
	if cap(p.args) == 0 {
		p.args = make([]span, 0, argsAtFirst)
	}
	p.args = append(p.args, span{p.pos, end})
	p.pos, p.bulk = end+2, 0
	p.left--
	return true, nil
}

// badNumber is what number returns for what is none.
const badNumber = 1 << 40

// number reads a line with a number that begins at byte at. end is where the
// next line begins, or 0 if there is no end yet.
func (p *Parser) number(b []byte, at int, tooLong Error) (k, end int, err error) {
	i, neg := at, false
	if i < len(b) && b[i] == '-' {
		neg = true
		i++
	}
	digits := i
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9' && i-digits < 11; i++ {
		k = 10*k + int(b[i]-'0')
	}
	if i+1 < len(b) && b[i] == '\r' && i > digits {
		if neg {
			k = -k
		}
		return k, i + 2, nil
	}
	cr := bytes.IndexByte(b[at:], '\r')
	switch {
	case cr < 0 && len(b)-at > MaxInline:
		return 0, 0, tooLong
	case cr < 0 || at+cr+1 >= len(b):
		return 0, 0, nil
	}
	return badNumber, at + cr + 2, nil
}

// inline parses a command that is a line of words.
func (p *Parser) inline(b []byte, args [][]byte) (_ [][]byte, n int, err error) {
	nl := bytes.IndexByte(b[p.pos:], '\n')
	if nl < 0 {
		if len(b) > MaxInline {
			return args, 0, Error("Protocol error: too big inline request")
		}
		p.pos = len(b)
		return args, 0, nil
	}
	nl += p.pos
	line := b[:nl]
	if k := len(line); k > 0 && line[k-1] == '\r' {
		line = line[:k-1]
	}
	args, ok := SplitWords(line, args)
	if !ok {
		return args, 0, Error("Protocol error: unbalanced quotes in request")
	}
	p.Reset()
	return args, nl + 1, nil
}
