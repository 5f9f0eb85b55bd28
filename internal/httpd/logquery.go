package httpd

import (
	"bytes"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/pastenet/paste/internal/http1"
)

// The paths that are about the log's records; every other one is for those who
// want to store something, or to measure.
const (
	pathLog    = "/log"
	pathEvents = "/log/events"
	pathStatus = "/log/status"
	pathCursor = "/log/cursors"
	pathHealth = "/healthz"
	pathReady  = "/readyz"
)

// Limits of what may be asked for.
const (
	defaultMax = 1000
	maxWait    = time.Hour
)

// query is what a client wants to read.
type query struct {
	what   queryKind
	format format
	seq    uint64 // the record, or the first one
	oldest bool   // the first one there is, in place of seq
	newest bool   // the next one that comes, in place of seq
	max    uint64 // records
	wait   time.Duration
	head   bool   // HEAD: only the header
	cursor string // whose records, or that is to be changed
	ack    uint64 // the last record that the cursor's reader has dealt with
	acked  bool   // there is an ack
	free   bool   // the cursor is not to protect
	status int    // of a refusal, 0 is 400
	bad    string // why it is refused
}

type queryKind uint8

const (
	readNothing queryKind = iota
	readOne               // GET /log/SEQ
	readList              // GET /log
	readEvents            // GET /log/events
	readHealth
	readReady
	readStatus
	readCursors // GET /log/cursors
	readCursor  // GET /log/cursors/NAME
	setCursor   // PUT
	ackCursor   // POST
	dropCursor  // DELETE
)

// format is how the records of a list are told apart.
type format uint8

const (
	formatRaw     format = iota // not at all: their bytes
	formatLines                 // a line of JSON each
	formatLengths               // 16 bytes in front of each: number and length, big-endian
	formatEvents                // server-sent events
)

var formats = map[string]format{"raw": formatRaw, "ndjson": formatLines, "lengths": formatLengths}

var contentTypes = [...]string{formatRaw: "application/octet-stream", formatLines: "application/x-ndjson",
	formatLengths: "application/octet-stream", formatEvents: "text/event-stream"}

// readsLog says whether a request may be about the log's records, without taking it
// apart: nearly none is.
func readsLog(r *http1.Request) bool {
	if len(r.Target) < len(pathLog) || r.Target[0] != '/' {
		return false
	}
	if r.Method != http1.MethodGet && r.Method != http1.MethodHead {
		return aboutCursors(r.Target)
	}
	switch r.Target[1] {
	case 'l':
		rest, ok := bytes.CutPrefix(r.Target, []byte(pathLog))
		return ok && (len(rest) == 0 || rest[0] == '/' || rest[0] == '?')
	case 'h':
		return string(r.Target) == pathHealth
	case 'r':
		return string(r.Target) == pathReady
	}
	return false
}

// parseQuery takes apart a target that readsLog has accepted. What it does not know
// it refuses.
func parseQuery(r *http1.Request) query {
	q := query{head: r.Method == http1.MethodHead, max: defaultMax, oldest: true}
	u, err := url.ParseRequestURI(string(r.Target))
	if err != nil {
		q.bad = "the target is no path with a query"
		return q
	}
	known := ""
	if aboutCursors(r.Target) {
		return q.ofCursor(r, u)
	}
	switch number, one := strings.CutPrefix(u.Path, pathLog+"/"); {
	case u.Path == pathHealth:
		q.what = readHealth
	case u.Path == pathReady:
		q.what = readReady
	case u.Path == pathLog:
		q.what, known = readList, "from max wait format"
	case u.Path == pathEvents:
		q.what, q.format, known = readEvents, formatEvents, "from"
		q.oldest, q.newest = false, true
		if id := string(r.LastEventID); id != "" {
			q.lastEvent(id)
		}
	case u.Path == pathStatus:
		q.what = readStatus
	case one:
		q.what, q.oldest = readOne, false
		if q.seq, err = strconv.ParseUint(number, 10, 64); err != nil {
			q.bad = fmt.Sprintf("%q is no record's number", number)
		}
	default:
		q.bad = "there is only " + pathLog + ", " + pathLog + "/NUMBER, " + pathEvents + ", " + pathStatus + " and " + pathCursor
	}
	q.parameters(u, known)
	return q
}

// parameters reads the query of a target.
func (q *query) parameters(u *url.URL, known string) {
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		q.bad = "the query cannot be read"
	}
	for name, v := range values {
		if q.bad == "" {
			q.bad = q.set(name, v, known)
		}
	}
}

// lastEvent has a follower go on behind the last event that it has seen.
func (q *query) lastEvent(id string) {
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil || n+1 == 0 {
		q.bad = fmt.Sprintf("Last-Event-ID %q is no record's number", id)
		return
	}
	q.seq, q.newest = n+1, false
}

// set sets a parameter, and returns why it cannot.
func (q *query) set(name string, values []string, known string) string {
	if !strings.Contains(" "+known+" ", " "+name+" ") {
		if known == "" {
			return fmt.Sprintf("there is no parameter %q here", name)
		}
		return fmt.Sprintf("there is no parameter %q here, only %s", name, strings.ReplaceAll(known, " ", ", "))
	}
	if len(values) != 1 {
		return name + " is given more than once"
	}
	var err error
	switch v := values[0]; name {
	case "from":
		switch v {
		case "oldest":
			q.oldest, q.newest = true, false
		case "next":
			q.oldest, q.newest = false, true
		default:
			q.oldest, q.newest = false, false
			q.seq, err = strconv.ParseUint(v, 10, 64)
		}
		if err != nil {
			return "from is a record's number, oldest or next"
		}
	case "max":
		if q.max, err = strconv.ParseUint(v, 10, 64); err != nil || q.max == 0 {
			return "max is a number of records, at least 1"
		}
	case "wait":
		seconds, err := strconv.ParseFloat(v, 64)
		if !(seconds >= 0 && seconds <= maxWait.Seconds()) || err != nil {
			return fmt.Sprintf("wait is a number of seconds, at most %.0f", maxWait.Seconds())
		}
		q.wait = time.Duration(seconds * float64(time.Second))
	case "ack":
		if q.ack, err = strconv.ParseUint(v, 10, 64); err != nil || q.ack+1 == 0 {
			return "ack is the number of a record"
		}
		q.acked = true
	case "protect":
		if q.free = v == "no"; !q.free && v != "yes" {
			return "protect is yes or no"
		}
	case "format":
		var ok bool
		if q.format, ok = formats[v]; !ok {
			return "format is raw, ndjson or lengths"
		}
	}
	return ""
}
