package httpd

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"unicode/utf8"

	"github.com/pastenet/paste/pmem"
)

// wholeLimit is the most bytes of a record that are looked at before its first one is
// sent: for damage, and whether followers get it as text.
const wholeLimit = 1 << 20

// encoder writes one record in a format, piece by piece.
type encoder struct {
	begun    bool
	rec      uint64 // its number
	format   format
	text     bool // of an event
	sound    bool // its checksums were compared
	stage    stage
	frag     int // where the payload goes on
	verified int // fragments before it
	off      int
	carry    [3]byte // bytes that base64 takes with the next ones
	n        int     // of them
}

type stage uint8

const (
	stageBefore stage = iota
	stagePayload
	stageAfter
)

// newEncoder returns the encoder of a record. The error is that of a damaged one, if
// that can be told at once.
func newEncoder(f format, r *pmem.Record) (encoder, error) {
	e := encoder{begun: true, rec: r.Seq, format: f, sound: r.Length <= wholeLimit}
	if !e.sound {
		return e, nil
	}
	e.text = f == formatEvents && isText(r)
	return e, r.Verify()
}

// isText says whether a record may be the data of events as it is: their lines end
// with LF, and nothing in it is taken for another end.
func isText(r *pmem.Record) bool {
	var all []byte
	for i := range r.Fragments {
		if all = append(all, r.Payload(i)...); bytes.IndexByte(r.Payload(i), '\r') >= 0 {
			return false
		}
	}
	return utf8.Valid(all)
}

// edge is the most bytes in front of a payload, or behind it.
const edge = 96

// fill appends at most n bytes to b, or edge bytes where that is more, and reports
// whether the record is complete. The log must not change meanwhile. The error is that
// of a damaged record.
func (e *encoder) fill(b []byte, r *pmem.Record, n int) (_ []byte, done bool, err error) {
	n = max(n, 2*edge)
	if e.stage == stageBefore {
		b = e.before(b, r)
		e.stage = stagePayload
	}
	for e.stage == stagePayload {
		if e.frag == len(r.Fragments) {
			e.stage = stageAfter
			break
		}
		room := n - len(b) - edge
		if room < edge {
			return b, false, nil
		}
		if e.frag >= e.verified && !e.sound {
			if e.verified, err = r.VerifyFrom(e.frag); err != nil {
				return b, false, err
			}
		}
		rest := r.Payload(e.frag)[e.off:]
		piece := rest[:min(len(rest), room/4*3)] // that base64 has room, and "data: " in front of most lines
		var taken int
		b, taken = e.payload(b, piece, room)
		if e.off += taken; taken == len(rest) {
			e.frag, e.off = e.frag+1, 0
		}
	}
	return e.after(b), true, nil
}

func (e *encoder) before(b []byte, r *pmem.Record) []byte {
	switch e.format {
	case formatLines:
		b = append(strconv.AppendUint(append(b, `{"seq":`...), r.Seq, 10), `,"length":`...)
		return append(strconv.AppendInt(b, r.Length, 10), `,"data":"`...)
	case formatLengths:
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, r.Seq), uint64(r.Length))
	case formatEvents:
		b = append(strconv.AppendUint(append(b, "id: "...), r.Seq, 10), '\n')
		if !e.text {
			b = append(b, "event: base64\n"...)
		}
		return append(b, "data: "...)
	}
	return b
}

// payload appends a piece of the payload, or a part of it where that would take more
// than room bytes, and returns how much of it.
func (e *encoder) payload(b, piece []byte, room int) (_ []byte, taken int) {
	switch {
	case e.format == formatRaw, e.format == formatLengths:
		return append(b, piece...), len(piece)
	case !e.text:
		return e.base64(b, piece), len(piece)
	}
	begin := len(b)
	for i, c := range piece {
		if len(b)-begin > room-8 {
			return b, i
		}
		if b = append(b, c); c == '\n' {
			b = append(b, "data: "...)
		}
	}
	return b, len(piece)
}

func (e *encoder) base64(b, piece []byte) []byte {
	if e.n > 0 {
		k := copy(e.carry[e.n:], piece)
		e.n += k
		piece = piece[k:]
		if e.n < 3 {
			return b
		}
		b = base64.StdEncoding.AppendEncode(b, e.carry[:])
	}
	whole := len(piece) / 3 * 3
	e.n = copy(e.carry[:], piece[whole:])
	return base64.StdEncoding.AppendEncode(b, piece[:whole])
}

func (e *encoder) after(b []byte) []byte {
	if e.format == formatLines || e.format == formatEvents && !e.text {
		b = base64.StdEncoding.AppendEncode(b, e.carry[:e.n])
	}
	switch e.format {
	case formatLines:
		return append(b, "\"}\n"...)
	case formatEvents:
		return append(b, "\n\n"...)
	}
	return b
}
