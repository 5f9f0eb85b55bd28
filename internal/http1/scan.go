package http1

import "encoding/binary"

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// skipVisible returns the index of the first control character in b from i on, or len(b). Eight
// bytes are tested at a time: a byte below 0x20 borrows from its top bit when 0x20 is
// subtracted, and one equal to 0x7f becomes zero by the exclusive or. Borrows can only make a
// later byte look special, and the loop at the end decides.
func skipVisible(b []byte, i int) int {
	for ; len(b)-i >= 8; i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		d := x ^ (0x7f * ones)
		if ((x-0x20*ones)&^x|(d-ones)&^d)&highs != 0 {
			break
		}
	}
	for i < len(b) && class[b[i]]&isVisible != 0 {
		i++
	}
	return i
}

// skipTarget returns the index of the first byte that may not be part of a request target, in
// the manner of skipVisible; here a space and everything beyond ASCII stop too.
func skipTarget(b []byte, i int) int {
	for ; len(b)-i >= 8; i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		d := x ^ (0x7f * ones)
		if (x-0x21*ones|x|(d-ones)&^d)&highs != 0 {
			break
		}
	}
	for i < len(b) && class[b[i]]&isTarget != 0 {
		i++
	}
	return i
}

func methodOf(m []byte) Method {
	switch string(m) {
	case "GET":
		return MethodGet
	case "POST":
		return MethodPost
	case "PUT":
		return MethodPut
	case "HEAD":
		return MethodHead
	case "DELETE":
		return MethodDelete
	case "OPTIONS":
		return MethodOptions
	case "CONNECT":
		return MethodConnect
	}
	return MethodOther
}

const (
	isToken   = 1 << iota // RFC 9110, 5.6.2
	isVisible             // may stand in a field value, the tab aside
	isTarget              // may stand in a request target
)

// class has the character classes of every byte.
var class = func() (t [256]uint8) {
	for c := 0x21; c < 0x7f; c++ {
		t[c] |= isVisible | isTarget
	}
	t[' '] |= isVisible
	for c := 0x80; c < 0x100; c++ {
		t[c] |= isVisible
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] |= isToken
		t[c-'a'+'A'] |= isToken
	}
	for c := '0'; c <= '9'; c++ {
		t[c] |= isToken
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] |= isToken
	}
	return t
}()
