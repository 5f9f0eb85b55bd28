package httpd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/pastenet/paste/internal/http1"
	"github.com/pastenet/paste/internal/intake"
	"github.com/pastenet/paste/pmem"
)

// aboutCursors says whether a target is about cursors.
func aboutCursors(target []byte) bool {
	rest, ok := bytes.CutPrefix(target, []byte(pathCursor))
	return ok && (len(rest) == 0 || rest[0] == '/' || rest[0] == '?')
}

// ofCursor takes apart a request about cursors.
func (q query) ofCursor(r *http1.Request, u *url.URL) query {
	name, part, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(u.Path, pathCursor), "/"), "/")
	get := r.Method == http1.MethodGet || q.head
	known := ""
	switch {
	case u.Path == pathCursor && get:
		q.what = readCursors
	case u.Path == pathCursor:
		q.status, q.bad = http.StatusMethodNotAllowed, onlyRead
	case !validName(name):
		q.bad = fmt.Sprintf("%q is no cursor's name: 1 to %d letters, digits, dots, dashes and underscores", name, intake.MaxName)
	case part == "records" && get:
		q.what, known = readList, "max wait format"
	case part == "events" && get:
		q.what, q.format = readEvents, formatEvents
		if id := string(r.LastEventID); id != "" {
			q.lastEvent(id)
		}
	case part == "records" || part == "events":
		q.status, q.bad = http.StatusMethodNotAllowed, onlyRead
	case part != "":
		q.status, q.bad = http.StatusNotFound, fmt.Sprintf("a cursor has no %q, only records and events", part)
	case get:
		q.what = readCursor
	case r.Method == http1.MethodPut:
		q.what, known = setCursor, "from protect"
	case r.Method == http1.MethodPost:
		q.what, known = ackCursor, "ack"
	case r.Method == http1.MethodDelete:
		q.what = dropCursor
	default:
		q.status, q.bad = http.StatusMethodNotAllowed, "a cursor has GET, HEAD, PUT, POST and DELETE"
	}
	q.cursor = name
	if q.parameters(u, known); q.bad != "" {
		return q
	}
	switch {
	case r.ContentLength != 0:
		q.bad = "a request about a cursor has no body"
	case q.what == ackCursor && !q.acked:
		q.bad = "ack is missing: the number of the last record that was dealt with"
	}
	return q
}

const onlyRead = "only GET and HEAD are served here"

// allowed is the field that goes with a method that is not.
func (q *query) allowed() string {
	if q.bad == onlyRead {
		return "Allow: GET, HEAD\r\n"
	}
	return "Allow: GET, HEAD, PUT, POST, DELETE\r\n"
}

// validName says whether a cursor may have the name.
func validName(s string) bool {
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_') {
			return false
		}
	}
	return len(s) > 0 && len(s) <= intake.MaxName
}

// cursorState is what an answer says of a cursor.
type cursorState struct {
	Name     string `json:"name"`
	Next     uint64 `json:"next"`   // the first record that is not acknowledged
	Behind   uint64 `json:"behind"` // records from there on
	Lost     uint64 `json:"lost"`   // of those, were dropped
	Protects bool   `json:"protects"`
}

func stateOf(c intake.Cursor, log *pmem.Log) cursorState {
	s := cursorState{Name: c.Name, Next: c.Next, Protects: c.Protects}
	if next := log.Committed(); next > c.Next {
		s.Behind = next - c.Next
	}
	if oldest := log.Head(); oldest > c.Next {
		s.Lost = oldest - c.Next
	}
	return s
}

// answerCursor answers a request about cursors, or about the log as a whole. What it
// changes is durable before the answer leaves.
func (l *loop) answerCursor(c *conn) error {
	q := &c.reading.query
	l.s.lockLog()
	status, answer, err := l.cursor(q)
	l.s.unlockLog()
	switch {
	case errors.Is(err, pmem.ErrFull):
		return l.refuseReading(c, http.StatusInsufficientStorage, "", "no room in the pool for the cursor")
	case err != nil:
		return err
	case answer == nil && status == http.StatusNotFound:
		return l.refuseReading(c, status, "", fmt.Sprintf("there is no cursor %q", q.cursor))
	}
	if text, ok := answer.(string); ok {
		return l.refuseReading(c, status, "", text)
	}
	var body []byte
	if answer != nil {
		if body, err = json.Marshal(answer); err != nil {
			return fmt.Errorf("answer about cursors: %w", err)
		}
		body = append(body, '\n')
	}
	fields := ""
	if body != nil {
		fields = "Content-Type: application/json\r\nCache-Control: no-store\r\n"
	}
	b := render(status, form(&c.parser.Request), fields, string(body))
	if q.head {
		b = b[:len(b)-len(body)]
	}
	c.reading = nil
	return l.reply(c, b)
}

// cursor does what a request asks for, and returns what to answer: a text that
// refuses it, or what becomes JSON.
func (l *loop) cursor(q *query) (status int, answer any, err error) {
	log := l.s.pool.Log()
	at, ok := l.s.kept.Cursor(q.cursor)
	switch q.what {
	case readStatus:
		return http.StatusOK, l.s.logStatus(), nil
	case readCursors:
		all := []cursorState{}
		for _, c := range l.s.kept.Cursors() {
			all = append(all, stateOf(c, log))
		}
		return http.StatusOK, all, nil
	case setCursor:
		return l.createCursor(q, at, ok)
	}
	switch {
	case !ok:
		return http.StatusNotFound, nil, nil
	case q.what == readCursor:
		return http.StatusOK, stateOf(at, log), nil
	case q.what == dropCursor:
		l.staged = true
		return http.StatusNoContent, nil, l.s.kept.Remove(q.cursor)
	case q.ack >= log.Committed():
		return http.StatusConflict, fmt.Sprintf("there is no record %d yet; the next will be %d", q.ack, log.Committed()), nil
	case q.ack+1 > at.Next: // else it is acknowledged already
		at.Next = q.ack + 1
		if err := l.s.kept.Set(at); err != nil {
			return 0, nil, err
		}
	}
	l.staged = true // another ring may have set it, and not committed it yet
	return http.StatusOK, stateOf(at, log), nil
}

// createCursor makes a cursor. One that exists stays where it is, so that a client
// may ask again.
func (l *loop) createCursor(q *query, at intake.Cursor, exists bool) (status int, answer any, err error) {
	log := l.s.pool.Log()
	l.staged = true
	if exists {
		if at.Protects == q.free {
			return http.StatusConflict, fmt.Sprintf("cursor %q is there, and does the opposite of protect=%s; delete it first", q.cursor, map[bool]string{true: "no", false: "yes"}[q.free]), nil
		}
		return http.StatusOK, stateOf(at, log), nil
	}
	oldest, next := log.Head(), log.Committed()
	switch {
	case q.oldest:
		q.seq = oldest
	case q.newest:
		q.seq = next
	case q.seq < oldest:
		return http.StatusGone, fmt.Sprintf("record %d was dropped; the oldest is %d", q.seq, oldest), nil
	case q.seq > next:
		return http.StatusConflict, fmt.Sprintf("there is no record %d yet; the next will be %d", q.seq, next), nil
	}
	at = intake.Cursor{Name: q.cursor, Next: q.seq, Protects: !q.free}
	switch err := l.s.kept.Set(at); {
	case errors.Is(err, intake.ErrCursors):
		return http.StatusInsufficientStorage, err.Error(), nil
	case err != nil:
		return 0, nil, err
	}
	return http.StatusCreated, stateOf(at, log), nil
}

// logStatus is what GET /log/status says.
func (s *Server) logStatus() any {
	type retention struct {
		Bytes    int64   `json:"bytes,omitempty"`
		Age      float64 `json:"age_seconds,omitempty"`
		Read     bool    `json:"read,omitempty"`
		Withheld uint64  `json:"withheld"`
	}
	type keys struct {
		Kept   uint64  `json:"kept"`
		Most   uint64  `json:"most"`
		Window float64 `json:"window_seconds"`
	}
	log := s.pool.Log()
	most, window := s.kept.Limits()
	status := struct {
		Oldest    uint64       `json:"oldest"`
		Next      uint64       `json:"next"`
		Free      int          `json:"free_frames"`
		Cursors   int          `json:"cursors"`
		Protects  *cursorState `json:"protected_by,omitempty"`
		Retention retention    `json:"retention"`
		Keys      keys         `json:"idempotency_keys"`
	}{
		Oldest: log.Head(), Next: log.Committed(), Free: s.pool.Free(), Cursors: s.kept.Len(),
		Retention: retention{s.retain.Bytes, s.retain.Age.Seconds(), s.retain.Read, s.retain.withheld},
		Keys:      keys{s.kept.Keys(), most, window.Seconds()},
	}
	if c, ok := s.kept.Floor(); ok {
		at := stateOf(c, log)
		status.Protects = &at
	}
	return status
}
