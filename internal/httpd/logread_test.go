package httpd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// client keeps its connections to itself.
func (f *fixture) client() *http.Client {
	tr := &http.Transport{}
	f.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// fetch is a GET that wants a status.
func (f *fixture) fetch(c *http.Client, path string, status int) (*http.Response, []byte) {
	f.t.Helper()
	resp, err := c.Get("http://" + f.addr + path)
	qt.Assert(f.t, qt.IsNil(err))
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	qt.Assert(f.t, qt.IsNil(err))
	qt.Assert(f.t, qt.Equals(resp.StatusCode, status), qt.Commentf("%s: %.200q", path, b))
	return resp, b
}

// fill stores records, and returns them.
func (f *fixture) fill(c *http.Client, sizes ...int) (bodies [][]byte) {
	f.t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range sizes {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(rng.Uint32())
		}
		bodies = append(bodies, body)
		f.put(c, body)
	}
	return bodies
}

func (f *fixture) put(c *http.Client, body []byte) {
	f.t.Helper()
	resp, err := c.Post("http://"+f.addr+"/", "", bytes.NewReader(body))
	qt.Assert(f.t, qt.IsNil(err))
	resp.Body.Close()
	qt.Assert(f.t, qt.Equals(resp.StatusCode, 201))
}

func TestReadRecord(t *testing.T) {
	f := serve(t, setup{})
	c := f.client()
	bodies := f.fill(c, 1, 0, 3000, 1<<20, 5)
	for i, want := range bodies {
		resp, got := f.fetch(c, fmt.Sprintf("/log/%d", i+1), 200)
		qt.Check(t, qt.IsTrue(bytes.Equal(got, want)), qt.Commentf("record %d", i+1))
		qt.Check(t, qt.Equals(resp.ContentLength, int64(len(want))))
		qt.Check(t, qt.Equals(resp.Header.Get("X-Paste-Seq"), fmt.Sprint(i+1)))
	}
	resp, err := c.Head("http://" + f.addr + "/log/4")
	qt.Assert(t, qt.IsNil(err))
	resp.Body.Close()
	qt.Check(t, qt.Equals(resp.ContentLength, int64(1<<20)))
	_, text := f.fetch(c, "/log/6", 404)
	qt.Check(t, qt.Equals(string(text), "there is no record 6; the next will be 6\n"))
	f.fetch(c, "/healthz", 200)
	f.fetch(c, "/readyz", 200)
	// HTTP/1.0 and a pipeline, with an ordinary request behind.
	got := f.talk("GET /log/5 HTTP/1.1\r\nHost: x\r\n\r\nGET /log/1 HTTP/1.0\r\n\r\n")
	qt.Check(t, qt.IsTrue(strings.Contains(got, "Content-Length: 5\r\n\r\n"+string(bodies[4])+"HTTP/1.1 200 OK\r\nConnection: close\r\n")), qt.Commentf("%q", got))
	qt.Check(t, qt.IsTrue(strings.HasSuffix(got, "\r\n\r\n"+string(bodies[0]))), qt.Commentf("%q", got))
}

func TestReadDropped(t *testing.T) {
	f := prepare(t, setup{})
	for range 4 {
		_, err := f.pool.Log().AppendCopy([]byte("old"))
		qt.Assert(t, qt.IsNil(err))
	}
	qt.Assert(t, qt.IsNil(f.pool.Log().Commit()))
	qt.Assert(t, qt.IsNil(f.pool.Log().Truncate(2)))
	ctx, cancel := context.WithCancel(t.Context())
	f.cancel = cancel
	f.run(ctx)
	c := f.client()
	resp, text := f.fetch(c, "/log/1", 410)
	qt.Check(t, qt.Equals(resp.Header.Get("X-Paste-First"), "3"))
	qt.Check(t, qt.Equals(string(text), "record 1 was dropped; the oldest is 3\n"))
	f.fetch(c, "/log?from=2", 410)
	resp, got := f.fetch(c, "/log", 200)
	qt.Check(t, qt.Equals(string(got), "oldold"))
	qt.Check(t, qt.Equals(resp.Header.Get("X-Paste-First"), "3"))
	// A follower is told, and goes on.
	one := f.follow(c, "", "1")
	qt.Check(t, qt.Equals(one.next(), event{"", "dropped", "2-2"}))
	qt.Check(t, qt.Equals(one.next(), event{"3", "", "old"}))
}

// A damaged record is not given out, whether that shows before its first byte or not, and
// costs the server nothing else.
func TestReadDamaged(t *testing.T) {
	f := serve(t, setup{poolSize: 64 << 20})
	c := f.client()
	bodies := f.fill(c, 3000, 2<<20, 3000)
	for seq := uint64(1); seq <= 2; seq++ {
		r, err := f.pool.Log().Record(seq)
		qt.Assert(t, qt.IsNil(err))
		r.Payload(len(r.Fragments) - 1)[0] ^= 1
	}
	_, text := f.fetch(c, "/log/1", 500)
	qt.Check(t, qt.Equals(string(text), "record 1 is damaged\n"))
	for _, path := range []string{"/log/2", "/log", "/log?from=2&format=ndjson"} {
		resp, err := c.Get("http://" + f.addr + path)
		if err == nil { // else it was reset before the header was read
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		qt.Check(t, qt.IsNotNil(err), qt.Commentf("%s", path))
	}
	_, got := f.fetch(c, "/log?from=3", 200)
	qt.Check(t, qt.IsTrue(bytes.Equal(got, bodies[2])))
}

// readAll pages through a log.
func readAll(f *fixture, c *http.Client, format string, max int) (out []byte, pages int) {
	next := "1"
	for {
		resp, b := f.fetch(c, fmt.Sprintf("/log?from=%s&format=%s&max=%d", next, format, max), 200)
		if resp.Header.Get("X-Paste-Next") == next {
			qt.Assert(f.t, qt.HasLen(b, 0))
			return out, pages
		}
		next, out, pages = resp.Header.Get("X-Paste-Next"), append(out, b...), pages+1
	}
}

// Every format has every byte, whatever the sizes, and however it is paged.
func TestReadFormats(t *testing.T) {
	f := serve(t, setup{poolSize: 64 << 20})
	c := f.client()
	sizes := []int{0, 1, 2, 3, 4, 5, 100, 2047, 2048, 2049, 16383, 16384, 50001, 600001}
	bodies := f.fill(c, sizes...)
	for _, max := range []int{1, 3, 1000} {
		raw, pages := readAll(f, c, "raw", max)
		qt.Check(t, qt.Equals(pages, (len(bodies)+max-1)/max))
		qt.Check(t, qt.IsTrue(bytes.Equal(raw, bytes.Join(bodies, nil))))

		framed, pages := readAll(f, c, "lengths", max)
		qt.Check(t, qt.Equals(pages, (len(bodies)+max-1)/max))
		for i, want := range bodies {
			qt.Assert(t, qt.IsTrue(len(framed) >= 16+len(want)), qt.Commentf("record %d", i+1))
			qt.Check(t, qt.Equals(binary.BigEndian.Uint64(framed), uint64(i+1)))
			qt.Check(t, qt.Equals(binary.BigEndian.Uint64(framed[8:]), uint64(len(want))))
			qt.Check(t, qt.IsTrue(bytes.Equal(framed[16:16+len(want)], want)), qt.Commentf("record %d", i+1))
			framed = framed[16+len(want):]
		}
		qt.Check(t, qt.HasLen(framed, 0))

		lines, _ := readAll(f, c, "ndjson", max)
		d := json.NewDecoder(bytes.NewReader(lines))
		for i, want := range bodies {
			var r struct {
				Seq, Length uint64
				Data        []byte
			}
			qt.Assert(t, qt.IsNil(d.Decode(&r)))
			qt.Check(t, qt.Equals(r.Seq, uint64(i+1)))
			qt.Check(t, qt.Equals(r.Length, uint64(len(want))))
			qt.Check(t, qt.IsTrue(bytes.Equal(r.Data, want)), qt.Commentf("record %d", i+1))
		}
		qt.Check(t, qt.Equals(bytes.Count(lines, []byte("\n")), len(bodies)))
	}
}

func TestReadRefused(t *testing.T) {
	f := serve(t, setup{})
	c := f.client()
	for path, why := range map[string]string{
		"/log/":                  `"" is no record's number`,
		"/log/x":                 `"x" is no record's number`,
		"/log/-1":                `"-1" is no record's number`,
		"/log/1?from=2":          `there is no parameter "from" here`,
		"/log?form=2":            `there is no parameter "form" here, only from, max, wait, format`,
		"/log?from=first":        "from is a record's number, oldest or next",
		"/log?max=0":             "max is a number of records, at least 1",
		"/log?max=1&max=2":       "max is given more than once",
		"/log?wait=-1":           "wait is a number of seconds, at most 3600",
		"/log?wait=NaN":          "wait is a number of seconds, at most 3600",
		"/log?wait=3601":         "wait is a number of seconds, at most 3600",
		"/log?format=xml":        "format is raw, ndjson or lengths",
		"/log/events?max=1":      `there is no parameter "max" here, only from`,
		"/log/events?from=%zz":   "the query cannot be read",
		"/log/events?from=1;a=b": "the query cannot be read",
	} {
		_, text := f.fetch(c, path, 400)
		qt.Check(t, qt.Equals(string(text), why+"\n"), qt.Commentf("%s", path))
	}
	f.fetch(c, "/log?from=2", 404)
	f.fetch(c, "/logs", 200) // like any other path
}

// event is what a follower got.
type event struct{ id, kind, data string }

// follower reads server-sent events as a browser does.
type follower struct {
	t    *testing.T
	resp *http.Response
	in   *bufio.Reader
}

func (f *fixture) follow(c *http.Client, query, lastID string) *follower {
	f.t.Helper()
	req, err := http.NewRequest("GET", "http://"+f.addr+"/log/events"+query, nil)
	qt.Assert(f.t, qt.IsNil(err))
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := c.Do(req)
	qt.Assert(f.t, qt.IsNil(err))
	f.t.Cleanup(func() { resp.Body.Close() })
	qt.Assert(f.t, qt.Equals(resp.StatusCode, 200))
	qt.Assert(f.t, qt.Equals(resp.Header.Get("Content-Type"), "text/event-stream"))
	return &follower{t: f.t, resp: resp, in: bufio.NewReader(resp.Body)}
}

func (f *follower) next() event {
	f.t.Helper()
	e, err := f.read()
	qt.Assert(f.t, qt.IsNil(err))
	return e
}

func (f *follower) read() (e event, err error) {
	var data []string
	for {
		line, err := f.in.ReadString('\n')
		if err != nil {
			return e, err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "":
			e.data = strings.Join(data, "\n")
			return e, nil
		case "id":
			e.id = value
		case "event":
			e.kind = value
		case "data":
			data = append(data, value)
		}
	}
}

func TestFollow(t *testing.T) {
	for rings := 1; rings <= 2; rings++ {
		f := serve(t, setup{cfg: Config{Rings: rings}, poolSize: 64 << 20})
		writer := f.client()
		f.put(writer, []byte("before"))
		var followers []*follower
		for range 4 { // on whatever ring
			followers = append(followers, f.follow(f.client(), "", ""))
		}
		all := f.follow(f.client(), "?from=oldest", "")
		qt.Check(t, qt.Equals(all.next(), event{"1", "", "before"}))
		texts := []string{"one", "two\nlines\n", "", strings.Repeat("long\n", 9000)}
		for _, text := range texts {
			f.put(writer, []byte(text))
		}
		binary := f.fill(writer, 40000)[0]
		f.put(writer, []byte("with\rCR"))
		for _, one := range append(followers, all) {
			for i, text := range texts {
				qt.Assert(t, qt.Equals(one.next(), event{fmt.Sprint(2 + i), "", text}))
			}
			qt.Assert(t, qt.Equals(one.next(), event{"6", "base64", base64.StdEncoding.EncodeToString(binary)}))
			qt.Assert(t, qt.Equals(one.next(), event{"7", "base64", base64.StdEncoding.EncodeToString([]byte("with\rCR"))}))
		}
		again := f.follow(f.client(), "", "4")
		qt.Check(t, qt.Equals(again.next().id, "5"))
		f.stop()
	}
}

func TestReadWaits(t *testing.T) {
	f := serve(t, setup{cfg: Config{Rings: 2}})
	c := f.client()
	resp, got := f.fetch(c, "/log?wait=0.05", 200)
	qt.Check(t, qt.HasLen(got, 0))
	qt.Check(t, qt.Equals(resp.Header.Get("X-Paste-Next"), "1"))
	got1 := make(chan string)
	for range 4 {
		go func() {
			resp, err := f.client().Get("http://" + f.addr + "/log?wait=3600")
			if err != nil {
				got1 <- err.Error()
				return
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			got1 <- resp.Header.Get("X-Paste-Next") + " " + string(b)
		}()
	}
	eventually(t, "four that wait", func() bool { return f.srv.waiting.Load() == 4 })
	f.put(c, []byte("news"))
	for range 4 {
		qt.Check(t, qt.Equals(<-got1, "2 news"))
	}
	// What was asked behind it is answered behind it.
	conn := f.dial()
	_, err := io.WriteString(conn, "GET /log?from=2&wait=600 HTTP/1.1\r\nHost: x\r\n\r\n"+post("second")+closing)
	qt.Assert(t, qt.IsNil(err))
	eventually(t, "one that waits", func() bool { return f.srv.waiting.Load() == 1 })
	f.put(c, []byte("more news"))
	out, err := io.ReadAll(conn)
	qt.Assert(t, qt.IsNil(err))
	first := strings.Index(string(out), "more news")
	qt.Check(t, qt.IsTrue(first > 0 && strings.Index(string(out), "201 Created") > first), qt.Commentf("%q", out))
}

// Whoever waits is not in the way of the server's end, and a client that has gone is
// not waited for.
func TestWaitingEnds(t *testing.T) {
	f := serve(t, setup{cfg: Config{DrainTimeout: 3 * time.Minute}})
	c := f.dial()
	_, err := io.WriteString(c, "GET /log?wait=3600 HTTP/1.1\r\nHost: x\r\n\r\n")
	qt.Assert(t, qt.IsNil(err))
	eventually(t, "one that waits", func() bool { return f.srv.waiting.Load() == 1 })
	c.Close()
	eventually(t, "nobody who waits", func() bool { return f.srv.waiting.Load() == 0 })

	one := f.follow(f.client(), "", "")
	eventually(t, "one that waits", func() bool { return f.srv.waiting.Load() == 1 })
	f.cancel()
	rest, err := io.ReadAll(one.in)
	qt.Check(t, qt.IsNil(err)) // it ends as an answer should
	qt.Check(t, qt.HasLen(rest, 0))
	f.stop()
}

// A follower that is too slow is told what it has lost. Where that was in the middle of
// a record it is cut off, and comes again.
func TestFollowDropped(t *testing.T) {
	f := serve(t, setup{cfg: Config{OnFull: Wrap}, poolSize: 8 << 20})
	one := f.follow(f.client(), "?from=next", "")
	c := f.client()
	const n = 400
	for range n {
		f.fill(c, 100_000)
	}
	lost, got, cut := 0, 0, 0
	for last := 0; last < n; {
		e, err := one.read()
		if err != nil {
			cut++
			one = f.follow(f.client(), "", fmt.Sprint(last))
			continue
		}
		if e.kind == "dropped" {
			var from, to int
			_, err := fmt.Sscanf(e.data, "%d-%d", &from, &to)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.Equals(from, last+1))
			lost, last = lost+to-from+1, to
			continue
		}
		qt.Assert(t, qt.Equals(e.id, fmt.Sprint(last+1)))
		got, last = got+1, last+1
	}
	qt.Check(t, qt.Equals(got+lost, n))
	qt.Check(t, qt.IsTrue(lost > 0))
	qt.Check(t, qt.IsTrue(cut <= 1))
}
