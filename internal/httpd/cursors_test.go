package httpd

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/intake"
)

// ask sends a request with header fields "Name: value", and wants a status.
func (f *fixture) ask(c *http.Client, status int, method, path, body string, fields ...string) (string, http.Header) {
	f.t.Helper()
	req, err := http.NewRequest(method, "http://"+f.addr+path, strings.NewReader(body))
	qt.Assert(f.t, qt.IsNil(err))
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		req.Header.Set(name, value)
	}
	resp, err := c.Do(req)
	qt.Assert(f.t, qt.IsNil(err))
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	qt.Assert(f.t, qt.IsNil(err))
	qt.Assert(f.t, qt.Equals(resp.StatusCode, status), qt.Commentf("%s %s: %.200q", method, path, b))
	return string(b), resp.Header
}

func (f *fixture) cursor(c *http.Client, status int, method, path string) (s cursorState) {
	f.t.Helper()
	text, _ := f.ask(c, status, method, path, "")
	qt.Assert(f.t, qt.IsNil(json.Unmarshal([]byte(text), &s)))
	return s
}

func TestCursor(t *testing.T) {
	f := serve(t, setup{})
	c := f.client()
	f.fill(c, 10, 20, 30, 40)
	const billing = "/log/cursors/billing"
	text, _ := f.ask(c, 404, "GET", billing, "")
	qt.Check(t, qt.Equals(text, "there is no cursor \"billing\"\n"))
	f.ask(c, 404, "POST", billing+"?ack=1", "")
	f.ask(c, 404, "DELETE", billing, "")
	f.ask(c, 404, "GET", billing+"/records", "")
	qt.Check(t, qt.Equals(f.cursor(c, 201, "PUT", billing), cursorState{"billing", 1, 4, 0, true}))
	qt.Check(t, qt.Equals(f.cursor(c, 201, "PUT", "/log/cursors/late?from=next&protect=no"), cursorState{"late", 5, 0, 0, false}))
	qt.Check(t, qt.Equals(f.cursor(c, 201, "PUT", "/log/cursors/a.b-c_D?from=3"), cursorState{"a.b-c_D", 3, 2, 0, true}))

	got, header := f.ask(c, 200, "GET", billing+"/records?max=2&format=lengths", "")
	qt.Check(t, qt.Equals(len(got), 2*16+10+20))
	qt.Check(t, qt.Equals(header.Get("X-Paste-Next"), "3"))
	// Until it is acknowledged it comes again.
	again, _ := f.ask(c, 200, "GET", billing+"/records?max=2&format=lengths", "")
	qt.Check(t, qt.Equals(again, got))
	qt.Check(t, qt.Equals(f.cursor(c, 200, "POST", billing+"?ack=2").Next, 3))
	// Less than that, or the same again, changes nothing.
	qt.Check(t, qt.Equals(f.cursor(c, 200, "POST", billing+"?ack=1").Next, 3))
	qt.Check(t, qt.Equals(f.cursor(c, 200, "PUT", billing+"?from=oldest").Next, 3))
	_, header = f.ask(c, 200, "GET", billing+"/records", "")
	qt.Check(t, qt.Equals(header.Get("X-Paste-First"), "3"))
	text, _ = f.ask(c, 409, "POST", billing+"?ack=5", "")
	qt.Check(t, qt.Equals(text, "there is no record 5 yet; the next will be 5\n"))
	f.ask(c, 409, "PUT", "/log/cursors/x?from=6", "")
	f.ask(c, 409, "PUT", billing+"?protect=no", "")

	var all []cursorState
	text, _ = f.ask(c, 200, "GET", "/log/cursors", "")
	qt.Assert(t, qt.IsNil(json.Unmarshal([]byte(text), &all)))
	qt.Check(t, qt.DeepEquals(all, []cursorState{{"a.b-c_D", 3, 2, 0, true}, {"billing", 3, 2, 0, true}, {"late", 5, 0, 0, false}}))
	f.ask(c, 204, "DELETE", "/log/cursors/a.b-c_D", "")
	f.ask(c, 404, "GET", "/log/cursors/a.b-c_D", "")
	text, _ = f.ask(c, 200, "HEAD", billing, "")
	qt.Check(t, qt.Equals(text, ""))
	text, _ = f.ask(c, 200, "GET", "/log/status", "")
	qt.Check(t, qt.StringContains(text, `"oldest":1,"next":5,`))
	qt.Check(t, qt.StringContains(text, `"cursors":2,"protected_by":{"name":"billing","next":3,`))

	// They are there after the end of the server.
	f.stop()
	s, err := intake.Open(f.pool, intake.Options{})
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.DeepEquals(s.Cursors(), []intake.Cursor{{Name: "billing", Next: 3, Protects: true}, {Name: "late", Next: 5}}))
	s.Close()
}

// What makes no sense is refused, and says why; nothing of it is stored as a record.
func TestCursorRefused(t *testing.T) {
	f := serve(t, setup{})
	c := f.client()
	for _, r := range []struct {
		status                   int
		method, path, body, want string
	}{
		{400, "PUT", "/log/cursors/", "", "is no cursor's name"},
		{405, "PUT", "/log/cursors", "", "only GET and HEAD"},
		{400, "PUT", "/log/cursors/a%20b", "", "is no cursor's name"},
		{400, "PUT", "/log/cursors/" + strings.Repeat("n", 65), "", "is no cursor's name"},
		{400, "PUT", "/log/cursors/a", "body", "has no body"},
		{400, "PUT", "/log/cursors/a?protect=maybe", "", "yes or no"},
		{400, "PUT", "/log/cursors/a?format=raw", "", "no parameter"},
		{400, "POST", "/log/cursors/a", "", "ack is missing"},
		{400, "POST", "/log/cursors/a?ack=18446744073709551615", "", "number of a record"},
		{400, "GET", "/log/cursors/a/records?from=1", "", "no parameter"},
		{404, "GET", "/log/cursors/a/b", "", "only records and events"},
		{405, "POST", "/log/cursors/a/records", "", "only GET"},
		{405, "PATCH", "/log/cursors/a", "", "PUT, POST and DELETE"},
	} {
		text, header := f.ask(c, r.status, r.method, r.path, r.body)
		qt.Check(t, qt.StringContains(text, r.want), qt.Commentf("%s %s", r.method, r.path))
		qt.Check(t, qt.Equals(header.Get("Allow") != "", r.status == 405))
	}
	qt.Check(t, qt.HasLen(f.records(), 0))
}

// There are so many cursors and no more.
func TestCursorLimit(t *testing.T) {
	f := prepare(t, setup{})
	for i := range intake.MaxCursors {
		qt.Assert(t, qt.IsNil(f.srv.kept.Set(intake.Cursor{Name: fmt.Sprint(i), Next: 1})))
	}
	f.run(t.Context())
	c := f.client()
	text, _ := f.ask(c, 507, "PUT", "/log/cursors/more", "")
	qt.Check(t, qt.Equals(text, "there are 1000 cursors already\n"))
	f.ask(c, 200, "PUT", "/log/cursors/7?protect=no", "")
	f.ask(c, 204, "DELETE", "/log/cursors/7", "")
	f.ask(c, 201, "PUT", "/log/cursors/more", "")
}

// A follower of a cursor gets everything from there on.
func TestCursorEvents(t *testing.T) {
	f := serve(t, setup{})
	c := f.client()
	for i := range 3 {
		f.put(c, fmt.Append(nil, "body ", i+1))
	}
	f.cursor(c, 201, "PUT", "/log/cursors/a?from=2")
	resp, err := c.Get("http://" + f.addr + "/log/cursors/a/events")
	qt.Assert(t, qt.IsNil(err))
	defer resp.Body.Close()
	b := make([]byte, len("id: 2\ndata: body 2\n\n"))
	_, err = io.ReadFull(resp.Body, b)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(b), "id: 2\ndata: body 2\n\n"))
	// One that comes again goes on where it was.
	req, err := http.NewRequest("GET", "http://"+f.addr+"/log/cursors/a/events", nil)
	qt.Assert(t, qt.IsNil(err))
	req.Header.Set("Last-Event-ID", "2")
	again, err := c.Do(req)
	qt.Assert(t, qt.IsNil(err))
	defer again.Body.Close()
	_, err = io.ReadFull(again.Body, b)
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(string(b), "id: 3\ndata: body 3\n\n"))
}
