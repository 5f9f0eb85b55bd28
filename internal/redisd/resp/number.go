package resp

import (
	"math"
	"strconv"
)

// ParseInt reads an integer as Redis does: no blanks, no plus, no zeros in front.
func ParseInt(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	i, neg := 0, false
	if b[0] == '-' {
		i, neg = 1, true
	}
	if i == len(b) || b[i] == '0' && len(b) > 1 {
		return 0, false
	}
	var u uint64
	for ; i < len(b); i++ {
		d := b[i] - '0'
		if d > 9 || u > (math.MaxUint64-uint64(d))/10 {
			return 0, false
		}
		u = 10*u + uint64(d)
	}
	switch {
	case neg && u <= 1<<63:
		return -int64(u), true
	case !neg && u <= math.MaxInt64:
		return int64(u), true
	}
	return 0, false
}

// ParseUint reads a number without a sign.
func ParseUint(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 20 || b[0] == '+' || b[0] == '-' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b), 10, 64)
	return n, err == nil
}

// ParseFloat reads a floating-point number, which is not NaN.
func ParseFloat(b []byte) (f float64, ok bool) {
	if len(b) == 0 || len(b) > 256 || b[0] == ' ' {
		return 0, false
	}
	for _, c := range b {
		if c == '_' {
			return 0, false
		}
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil || math.IsNaN(f) {
		return 0, false
	}
	return f, true
}
