package portspec

import (
	"strconv"
	"strings"
)

// parser reads a name from left to right.
type parser struct {
	text string
	at   int
	spec Spec
}

// Parse takes a port's name apart. The error is an *Error.
func Parse(name string) (*Spec, error) {
	p := &parser{text: name, spec: Spec{Mode: AllNIC}}
	for _, step := range []func() error{p.subsystem, p.name, p.mode, p.flags, p.memory, p.options, p.check} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return &p.spec, nil
}

func (p *parser) rest() string { return p.text[p.at:] }
func (p *parser) end() bool    { return p.at == len(p.text) }

// next is the character at hand, 0 at the end.
func (p *parser) next() byte {
	if p.end() {
		return 0
	}
	return p.text[p.at]
}

// take consumes a character if it is at hand.
func (p *parser) take(c byte) bool {
	if p.next() != c || c == 0 {
		return false
	}
	p.at++
	return true
}

// until consumes everything up to one of the characters.
func (p *parser) until(stops string) string {
	rest := p.rest()
	if i := strings.IndexAny(rest, stops); i >= 0 {
		rest = rest[:i]
	}
	p.at += len(rest)
	return rest
}

// foreign are prefixes of netmap's relatives.
var foreign = []struct{ prefix, sentence string }{
	{"ptnetmap", "ptnetmap, netmap's passthrough into virtual machines, is not here: give the machine a virtio-net device and open that"},
	{"ptvale", "ptnetmap, netmap's passthrough into virtual machines, is not here: give the machine a virtio-net device and open that"},
	{"stack", "this is the prefix of PASTE's first version; its ports are called pst: now"},
}

func (p *parser) subsystem() error {
	for _, f := range foreign {
		if strings.HasPrefix(p.text, f.prefix) {
			return p.refuse(0, f.sentence)
		}
	}
	colon := strings.IndexByte(p.text, ':')
	if colon < 0 {
		if isName(p.text) {
			return p.fail(len(p.text), "no colon; a NIC is called netmap:%s", p.text)
		}
		return p.fail(len(p.text), "no colon; a name begins with netmap:, vale: or pst:")
	}
	prefix := p.text[:colon]
	p.at = colon + 1
	switch {
	case prefix == "netmap":
		p.spec.Subsystem = Netmap
	case prefix == "pst":
		p.spec.Subsystem = Pst
	case strings.HasPrefix(prefix, "vale"):
		p.spec.Subsystem, p.spec.Switch = Vale, prefix[4:]
		if i := notIdentifier(p.spec.Switch); i >= 0 {
			return p.fail(4+i, "a switch's name has only letters, digits and _")
		}
	case strings.HasPrefix(prefix, "netmap"), strings.HasPrefix(prefix, "pst"):
		i := len("netmap")
		if prefix[0] == 'p' {
			i = len("pst")
		}
		return p.fail(i, "nothing may be between %s and the colon", prefix[:i])
	default:
		return p.fail(0, "unknown prefix %q; there are netmap:, vale: and pst:", prefix)
	}
	return nil
}

// name reads the port's name and that of the pipe.
func (p *parser) name() error {
	begin := p.at
	// A NIC's name may have a minus, as one of netmap's cannot: the last one, if
	// a number follows, is the mode.
	whole := p.until("*^/@")
	if i := strings.LastIndexByte(whole, '-'); i >= 0 && (i == len(whole)-1 || isNumber(whole[i+1:]) || strings.ContainsAny(whole[:i], "{}")) {
		whole = whole[:i]
	}
	p.at = begin + len(whole)
	name := whole
	if i := strings.IndexAny(whole, "{}"); i >= 0 {
		name = whole[:i]
		p.spec.End, p.spec.Pipe = PipeEnd(whole[i]), whole[i+1:]
		if p.spec.Pipe == "" {
			return p.fail(begin+i+1, "the pipe has no name; one follows the brace")
		}
		if j := notIdentifier(p.spec.Pipe); j >= 0 {
			return p.fail(begin+i+1+j, "a pipe's name has only letters, digits and _")
		}
	}
	if name == "" {
		return p.fail(begin, "the port has no name")
	}
	if i := strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r == ':' || r == 0x7f }); i >= 0 {
		return p.fail(begin+i, "no name of a port has this character")
	}
	if p.spec.Name = name; len(p.spec.Port()) > maxName {
		return p.fail(begin, "the name has %d bytes; it may have %d", len(p.spec.Port()), maxName)
	}
	return nil
}

func (p *parser) mode() (err error) {
	at := p.at
	switch {
	case p.take('^'):
		p.spec.Mode = Host
		if isDigit(p.next()) {
			p.spec.Mode = OneHost
			p.spec.Ring, err = p.number("ring", 0, maxRing)
		}
	case p.take('*'):
		p.spec.Mode = NICAndHost
	case p.take('-'):
		p.spec.Mode = OneNIC
		p.spec.Ring, err = p.number("ring", 0, maxRing)
	}
	if err != nil {
		return err
	}
	if p.spec.Mode != AllNIC && p.spec.End != 0 {
		return p.fail(at, "a pipe has one pair of rings, and none of the host's")
	}
	if !p.end() && p.next() != '/' && p.next() != '@' {
		return p.fail(p.at, "unexpected %q: after the rings come /flags or @options", p.rest()[:1])
	}
	return nil
}

func (p *parser) flags() error {
	if !p.take('/') {
		return nil
	}
	if p.end() || p.next() == '@' {
		return p.fail(p.at, "no flag after the slash; there are %s", flagLetter)
	}
	for ; !p.end() && p.next() != '@'; p.at++ {
		f, ok := flagOf[p.next()]
		if !ok {
			return p.fail(p.at, "unknown flag %q; there are R, T (received or sent frames only), x (exclusive), and z, t, r (monitors)", p.rest()[:1])
		}
		p.spec.Flags |= f
		if p.spec.Flags&(RxOnly|TxOnly) == RxOnly|TxOnly {
			return p.fail(p.at, "R and T exclude each other; without both a port has both directions")
		}
	}
	return nil
}

func (p *parser) memory() (err error) {
	if p.next() != '@' || p.at+1 >= len(p.text) || !isDigit(p.text[p.at+1]) {
		return nil
	}
	p.at++
	p.spec.MemID, err = p.number("memory", 1, maxMemID)
	if err == nil && !p.end() && p.next() != '@' && p.next() != '/' {
		err = p.fail(p.at, "unexpected %q: after the memory's number come options", p.rest()[:1])
	}
	if err == nil && p.next() == '/' { // libnetmap takes the flags here as well
		err = p.flags()
	}
	return err
}

// check looks for what does not go together.
func (p *parser) check() error {
	if p.spec.Subsystem == Pst && p.spec.End != 0 {
		return p.fail(strings.IndexAny(p.text, "{}"), "a port of connections has no pipes")
	}
	if p.spec.Subsystem == Pst && (p.spec.Mode == Host || p.spec.Mode == OneHost || p.spec.Mode == NICAndHost) {
		return p.fail(strings.IndexAny(p.text, "^*"), "a port of connections has no rings of the host's: what is not registered never leaves the kernel")
	}
	return nil
}

// number reads decimal digits.
func (p *parser) number(what string, least, most int) (int, error) {
	at := p.at
	for isDigit(p.next()) {
		p.at++
	}
	if p.at == at {
		return 0, p.fail(at, "the number of the %s is missing", what)
	}
	return p.inRange(at, p.text[at:p.at], what, least, most)
}

func (p *parser) inRange(at int, digits, what string, least, most int) (int, error) {
	n, err := strconv.Atoi(digits)
	if err != nil && strings.TrimLeft(digits, "0123456789") != "" || digits == "" || !isDigit(digits[0]) {
		return 0, p.fail(at, "%q is not a number", digits)
	}
	if err != nil || n < least || n > most {
		return 0, p.fail(at, "%s is %s; it must be from %d to %d", what, digits, least, most)
	}
	return n, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isNumber(s string) bool { return s != "" && strings.TrimLeft(s, "0123456789") == "" }

// notIdentifier is where s is no identifier, or -1.
func notIdentifier(s string) int {
	return strings.IndexFunc(s, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

func isName(s string) bool { return s != "" && notIdentifier(s) < 0 }
