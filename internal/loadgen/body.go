package loadgen

import "fmt"

// IDSize is the number of bytes at the start of a body that tell which one it
// is: 8 hexadecimal digits each for run and connection, 16 for the request.
// Shorter bodies carry none.
const IDSize = 32

const hexDigits = "0123456789abcdef"

func putHex(b []byte, v uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = hexDigits[v&15]
		v >>= 4
	}
}

func getHex(b []byte) (v uint64, ok bool) {
	for _, c := range b {
		var d byte
		switch {
		case c >= '0' && c <= '9':
			d = c - '0'
		case c >= 'a' && c <= 'f':
			d = c - 'a' + 10
		default:
			return 0, false
		}
		v = v<<4 | uint64(d)
	}
	return v, true
}

// FillBody writes the body of request n on connection conn: its identity, then a
// pattern that depends on the connection only.
func FillBody(b []byte, run uint32, conn int, n uint64) {
	for i := range b {
		b[i] = 'a' + byte((i+conn)%26)
	}
	setID(b, run, conn, n)
}

func setID(b []byte, run uint32, conn int, n uint64) {
	if len(b) >= IDSize {
		putHex(b[0:8], uint64(run))
		putHex(b[8:16], uint64(conn))
		putHex(b[16:32], n)
	}
}

// ParseBody tells which request's body b is, and whether every byte of it is as
// FillBody wrote it.
func ParseBody(b []byte) (run uint32, conn int, n uint64, err error) {
	if len(b) < IDSize {
		return 0, 0, 0, fmt.Errorf("body of %d bytes carries no identity", len(b))
	}
	r, ok1 := getHex(b[0:8])
	c, ok2 := getHex(b[8:16])
	n, ok3 := getHex(b[16:32])
	if !ok1 || !ok2 || !ok3 {
		return 0, 0, 0, fmt.Errorf("body starts with %q, not with an identity", b[:IDSize])
	}
	for i := IDSize; i < len(b); i++ {
		if b[i] != 'a'+byte((i+int(c))%26) {
			return 0, 0, 0, fmt.Errorf("body of connection %d, request %d is wrong at byte %d", c, n, i)
		}
	}
	return uint32(r), int(c), n, nil
}
