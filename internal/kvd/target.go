package kvd

import (
	"bytes"
	"strconv"
)

// The parts of the server's name space.
const (
	keyPath  = "/k/"
	listPath = "/k"
)

// Limits of a list.
const (
	defaultLimit = 1000
	maxLimit     = 10000
)

const hexDigits = "0123456789ABCDEF"

// plain has the bytes that need no percent-encoding in a path.
var plain = func() (t [256]bool) {
	for c := range 256 {
		t[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			bytes.IndexByte([]byte("-._~!$&'()*+,;=:@/"), byte(c)) >= 0
	}
	return t
}()

// decode appends b, percent-decoded, to dst. With form a plus sign is a blank,
// as in queries.
func decode(dst, b []byte, form bool) ([]byte, bool) {
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '%':
			if i+2 >= len(b) {
				return dst, false
			}
			hi, lo := unhex(b[i+1]), unhex(b[i+2])
			if hi > 15 || lo > 15 {
				return dst, false
			}
			dst = append(dst, hi<<4|lo)
			i += 2
		case c == '+' && form:
			dst = append(dst, ' ')
		default:
			dst = append(dst, c)
		}
	}
	return dst, true
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}

// encode appends key, percent-encoded, to dst: for a path, and as the value of a
// parameter, which a plus sign or an ampersand would not be.
func encode(dst, key []byte) []byte {
	for _, c := range key {
		if plain[c] && c != '+' && c != '&' {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}

// origin cuts scheme and authority off a target in absolute form.
func origin(target []byte) []byte {
	for _, scheme := range []string{"http://", "https://"} {
		if rest, ok := bytes.CutPrefix(target, []byte(scheme)); ok {
			if i := bytes.IndexByte(rest, '/'); i >= 0 {
				return rest[i:]
			}
			return []byte("/")
		}
	}
	return target
}

// list is a decoded query for keys, and how far it has been answered.
type list struct {
	prefix  []byte
	from    []byte // the first key that may come, nil: any
	limit   int    // keys that are left
	chunked bool   // how the answer is sent
}

// parseList reads the query of a list; ok is false if it is none.
func parseList(query []byte) (q list, ok bool) {
	q.limit = defaultLimit
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte("&"))
		name, value, _ := bytes.Cut(pair, []byte("="))
		v, ok := decode(nil, value, true)
		if !ok {
			return q, false
		}
		switch string(name) {
		case "prefix":
			q.prefix = v
		case "after":
			q.from = append(v, 0) // the first key behind it
		case "limit":
			n, err := strconv.Atoi(string(v))
			if err != nil || n < 1 {
				return q, false
			}
			q.limit = min(n, maxLimit)
		case "":
		default:
			return q, false
		}
	}
	return q, true
}
