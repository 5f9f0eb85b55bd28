// Package framelog is the log of a switch: each record of a pool's log is a frame,
// with the port and the time at which it was received, or says what a port is called.
//
// A record's header, in the machine's byte order:
//
//	0  magic  "pf"
//	2  kind   1 frame: the payload; 2 port: the name follows the header, no payload
//	3  0
//	4  port   u16, from 0
//	6  time   u64, Unix nanoseconds
package framelog

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/pastenet/paste/pmem"
)

// Purpose is what a pool with such a log is for (pmem.Pool.Claim).
const Purpose = "switch"

const (
	magic      = "pf"
	kindFrame  = 1
	kindPort   = 2
	headerSize = 14
)

// header writes a record's header.
func header(b []byte, kind byte, port int, at time.Time) []byte {
	b = append(b[:0], magic...)
	b = append(b, kind, 0)
	b = binary.NativeEndian.AppendUint16(b, uint16(port))
	return binary.NativeEndian.AppendUint64(b, uint64(at.UnixNano()))
}

// Entry is a record of the log.
type Entry struct {
	Port int
	Time time.Time
	Name string // of the port, if it is a record that says it; else "" and the payload is a frame
}

// Read says what a record is; ok is false for one of another log.
func Read(r pmem.Record) (e Entry, ok bool) {
	h := r.Header
	if len(h) < headerSize || string(h[:2]) != magic || h[2] != kindFrame && h[2] != kindPort {
		return e, false
	}
	e.Port = int(binary.NativeEndian.Uint16(h[4:]))
	e.Time = time.Unix(0, int64(binary.NativeEndian.Uint64(h[6:])))
	if h[2] == kindPort {
		e.Name = string(h[headerSize:])
		if e.Name == "" {
			e.Name = fmt.Sprint("port ", e.Port)
		}
	}
	return e, true
}
