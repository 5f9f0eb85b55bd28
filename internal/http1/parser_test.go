package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// message is what a test sees of one request.
type message struct {
	Method    Method
	Target    string
	Minor     uint8
	KeepAlive bool
	Expect    bool
	Chunked   bool
	Length    int64
	Body      string
	Complete  bool
}

// parse feeds the pieces one after the other, each in a buffer of its own that is overwritten
// before the next one, as a ring's buffers are.
func parse(p *Parser, pieces ...[]byte) ([]message, *Error) {
	var out []message
	var cur *message
	for _, piece := range pieces {
		b := bytes.Clone(piece)
		rest := b
		for len(rest) > 0 {
			n, body, ev, err := p.Feed(rest)
			if err != nil {
				return out, err
			}
			if ev == 0 && n != len(rest) {
				panic(fmt.Sprintf("no event, but only %d of %d bytes consumed", n, len(rest)))
			}
			if !bytes.Equal(body, rest[n-len(body):n]) || (ev&Body != 0) != (len(body) > 0) {
				panic("body is not the end of what was consumed")
			}
			if ev&Headers != 0 {
				r := &p.Request
				out = append(out, message{
					Method: r.Method, Target: string(r.Target), Minor: r.Minor, KeepAlive: r.KeepAlive,
					Expect: r.ExpectContinue, Chunked: r.Chunked, Length: r.ContentLength,
				})
				cur = &out[len(out)-1]
			}
			if ev&Body != 0 {
				cur.Body += string(body)
			}
			if ev&Done != 0 {
				cur.Complete = true
			}
			rest = rest[n:]
		}
		for i := range b {
			b[i] = 0xff
		}
	}
	return out, nil
}

func pieces(s string, size int) (out [][]byte) {
	for len(s) > size {
		out = append(out, []byte(s[:size]))
		s = s[size:]
	}
	return append(out, []byte(s))
}

const (
	get     = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	post    = "POST /log HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world"
	chunked = "PUT /c HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: CHUNKED\r\n\r\n5;a=b\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-Sum: 1\r\n\r\n"
	curl    = "PUT /big HTTP/1.1\r\nHost: 10.0.0.1:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc"
)

var good = []struct {
	name, in string
	want     []message
}{
	{"get", get, []message{{Method: MethodGet, Target: "/", Minor: 1, KeepAlive: true, Complete: true}}},
	{"post", post, []message{{Method: MethodPost, Target: "/log", Minor: 1, KeepAlive: true, Length: 11, Body: "hello world", Complete: true}}},
	{"chunked", chunked, []message{{Method: MethodPut, Target: "/c", Minor: 1, KeepAlive: true, Chunked: true, Length: -1, Body: "hello world", Complete: true}}},
	{"expect", curl, []message{{Method: MethodPut, Target: "/big", Minor: 1, KeepAlive: true, Expect: true, Length: 3, Body: "abc", Complete: true}}},
	{"pipelined", get + post + chunked + get, []message{
		{Method: MethodGet, Target: "/", Minor: 1, KeepAlive: true, Complete: true},
		{Method: MethodPost, Target: "/log", Minor: 1, KeepAlive: true, Length: 11, Body: "hello world", Complete: true},
		{Method: MethodPut, Target: "/c", Minor: 1, KeepAlive: true, Chunked: true, Length: -1, Body: "hello world", Complete: true},
		{Method: MethodGet, Target: "/", Minor: 1, KeepAlive: true, Complete: true},
	}},
	{"empty line first", "\r\n\r\n" + get, []message{{Method: MethodGet, Target: "/", Minor: 1, KeepAlive: true, Complete: true}}},
	{"close", "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n", []message{{Method: MethodHead, Target: "/", Minor: 1, Complete: true}}},
	{"1.0", "GET /a?b HTTP/1.0\r\n\r\n", []message{{Method: MethodGet, Target: "/a?b", Complete: true}}},
	{"1.0 keep-alive", "GET / HTTP/1.0\r\nConnection:keep-alive\t\r\n\r\n", []message{{Method: MethodGet, Target: "/", KeepAlive: true, Complete: true}}},
	{"odd but valid", "M-X * HTTP/1.1\r\nHost:\r\nX: \"a\tb\" \x80\xff\r\nY:   \r\n\r\n", []message{{Target: "*", Minor: 1, KeepAlive: true, Complete: true}}},
	{"zero length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", []message{{Method: MethodPost, Target: "/", Minor: 1, KeepAlive: true, Complete: true}}},
	{"empty chunked", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []message{{Method: MethodPost, Target: "/", Minor: 1, KeepAlive: true, Chunked: true, Length: -1, Complete: true}}},
}

func TestGood(t *testing.T) {
	for _, tc := range good {
		t.Run(tc.name, func(t *testing.T) {
			for size := 1; size <= len(tc.in); size++ {
				var p Parser
				got, err := parse(&p, pieces(tc.in, size)...)
				qt.Assert(t, qt.IsNil(err), qt.Commentf("pieces of %d", size))
				qt.Assert(t, qt.DeepEquals(got, tc.want), qt.Commentf("pieces of %d", size))
				qt.Assert(t, qt.IsTrue(p.Idle()))
			}
		})
	}
}

func TestLargestHeader(t *testing.T) {
	head := "GET / HTTP/1.1\r\nHost: x\r\nX: "
	in := head + strings.Repeat("a", MaxHeader-len(head)-4) + "\r\n\r\n"
	for _, size := range []int{1, 1000, len(in)} {
		var p Parser
		got, err := parse(&p, pieces(in+get, size)...)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.HasLen(got, 2))
	}
}

// reference parses in with net/http, and reports whether it consumed complete requests only.
func reference(in []byte) ([]message, error) {
	var out []message
	r := bufio.NewReader(bytes.NewReader(in))
	for {
		if _, err := r.Peek(1); err != nil {
			return out, nil
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			return out, err
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return out, err
		}
		out = append(out, message{
			Method: methodOf([]byte(req.Method)), Target: req.RequestURI, Minor: uint8(req.ProtoMinor),
			Chunked: len(req.TransferEncoding) > 0, Length: req.ContentLength, Body: string(body), Complete: true,
		})
	}
}

func TestAgainstNetHTTP(t *testing.T) {
	for _, tc := range good {
		// net/http leaves it to its server to skip empty lines.
		in := strings.TrimLeft(tc.in, "\r\n")
		want, err := reference([]byte(in))
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", tc.name))
		for cut := range in {
			var p Parser
			got, perr := parse(&p, []byte(in[:cut]), []byte(in[cut:]))
			qt.Assert(t, qt.IsNil(perr))
			for i := range got {
				got[i].KeepAlive, got[i].Expect = false, false
			}
			qt.Assert(t, qt.DeepEquals(got, want), qt.Commentf("%s cut at %d", tc.name, cut))
		}
	}
}

// TestPieces: where a stream is cut never matters.
func TestPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in strings.Builder
		for range rapid.IntRange(1, 5).Draw(t, "requests") {
			in.WriteString(rapid.SampledFrom(good).Draw(t, "request").in)
		}
		s := []byte(in.String())
		if rapid.Bool().Draw(t, "damage") {
			s[rapid.IntRange(0, len(s)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		}
		var whole, cut Parser
		want, wantErr := parse(&whole, s)
		var parts [][]byte
		for rest := s; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			parts = append(parts, rest[:n])
			rest = rest[n:]
		}
		got, gotErr := parse(&cut, parts...)
		if gotErr == nil && wantErr != nil {
			// An unfinished line may be refused earlier in one piece than in several,
			// but no later than when it is complete.
			_, gotErr = parse(&cut, []byte("\r\n\r\n"))
		}
		if diff := cmp.Diff(want, got); diff != "" || gotErr != wantErr {
			t.Fatalf("in one piece %v, cut up %v\n%s", wantErr, gotErr, diff)
		}
	})
}

// FuzzFeed: nothing panics, cuts do not matter, and what is accepted as complete means the same
// to net/http.
func FuzzFeed(f *testing.F) {
	for _, tc := range good {
		f.Add([]byte(tc.in), uint16(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		var whole, split Parser
		got, err := parse(&whole, in)
		k := min(int(cut), len(in))
		again, againErr := parse(&split, in[:k], in[k:])
		// A line is judged when it is complete, so an unfinished one may be refused earlier in
		// one piece than in two.
		if againErr == nil && err == nil {
			qt.Assert(t, qt.DeepEquals(again, got))
		}
		if err != nil || len(got) == 0 || !got[len(got)-1].Complete || !whole.Idle() {
			return
		}
		if in[0] == '\r' {
			return
		}
		// net/http may refuse what is accepted here (it parses the target as a URL), but what it
		// accepts before that has to be the same.
		want, refErr := reference(in)
		if refErr == nil {
			qt.Assert(t, qt.HasLen(got, len(want)))
		}
		for i := range min(len(want), len(got)) {
			qt.Assert(t, qt.Equals(got[i].Body, want[i].Body))
			qt.Assert(t, qt.Equals(got[i].Target, want[i].Target))
		}
	})
}

func TestNoAllocation(t *testing.T) {
	for _, in := range []string{get, post, chunked} {
		var p Parser
		b := []byte(in + in)
		p.Feed(b[:5])
		p.Feed(b[5:]) // the buffer exists from here on
		p.Reset()
		qt.Assert(t, qt.Equals(testing.AllocsPerRun(100, func() {
			for rest := b; len(rest) > 0; {
				n, _, _, err := p.Feed(rest[:min(len(rest), 40)])
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
		}), 0))
	}
}

func BenchmarkFeed(b *testing.B) {
	wrk := "GET / HTTP/1.1\r\nHost: 10.99.0.1:8080\r\n\r\n"
	body := strings.Repeat("x", 1024)
	for _, bc := range []struct{ name, in string }{
		{"get", get},
		{"wrk", wrk},
		{"post1k", "POST / HTTP/1.1\r\nHost: 10.99.0.1:8080\r\nContent-Length: 1024\r\n\r\n" + body},
		{"chunked", chunked},
		{"curl", curl},
	} {
		b.Run(bc.name, func(b *testing.B) {
			in := []byte(bc.in)
			var p Parser
			b.ReportAllocs()
			for b.Loop() {
				for rest := in; len(rest) > 0; {
					n, _, _, err := p.Feed(rest)
					if err != nil {
						b.Fatal(err)
					}
					rest = rest[n:]
				}
			}
		})
	}
}
