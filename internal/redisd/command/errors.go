package command

import (
	"errors"

	"github.com/pastenet/paste/internal/redisd/store"
	"github.com/pastenet/paste/pmem"
)

// The texts of Redis.
const (
	errSyntax    = "ERR syntax error"
	errInt       = "ERR value is not an integer or out of range"
	errFloat     = "ERR value is not a valid float"
	errType      = "WRONGTYPE Operation against a key holding the wrong kind of value"
	errNoKey     = "ERR no such key"
	errOverflow  = "ERR increment or decrement would overflow"
	errNaN       = "ERR increment would produce NaN or Infinity"
	errOffset    = "ERR offset is out of range"
	errSize      = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
	errNoAuth    = "NOAUTH Authentication required."
	errWrongPass = "WRONGPASS invalid username-password pair or user is disabled."
	errOOM       = "OOM command not allowed when used memory > 'maxmemory'."
	errTooLarge  = "ERR value is out of range"
	errBelow     = "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"
)

// textOf is what a client is told of an error of the store; fatal says that the
// server cannot go on.
func textOf(err error) (text string, fatal bool) {
	switch {
	case errors.Is(err, pmem.ErrIO), errors.Is(err, pmem.ErrClosed), errors.Is(err, pmem.ErrLost):
		return "", true
	case store.Full(err):
		return errOOM, false
	case errors.Is(err, store.ErrKeyTooLong):
		return "ERR " + store.ErrKeyTooLong.Error(), false
	}
	return "ERR " + err.Error(), false
}
