package kvd

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/httpd"
)

// sizes are of values that are kept in each of the ways: in the tree, behind their
// record's head, in one frame, and in many.
var sizes = []int{0, 1, 10, 64, 65, 100, 200, 250, 1000, 2048, 5000, 100_000}

func text(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprint(&b, i, " ")
	}
	return b.String()[:n]
}

func TestRange(t *testing.T) {
	l := openLocal(t, 1, httpd.Config{})
	for _, size := range sizes {
		for _, ctype := range []string{"", "text/plain"} {
			path, v := fmt.Sprint("/k/", size, ctype), text(size)
			l.do("PUT", path, v, "Content-Type: "+ctype)
			_, _, header := l.do("GET", path, "")
			tag := header.Get("ETag")
			for _, r := range []struct {
				spec string
				a, b int // of what is sent; b < 0: 416; a < 0: all of it
			}{
				{"bytes=0-0", 0, 1}, {"bytes=0-", 0, size}, {"bytes=5-9", 5, 10}, {"bytes=-3", max(size-3, 0), size},
				{"bytes=-0", 0, -1}, {fmt.Sprint("bytes=", size, "-"), 0, -1}, {fmt.Sprint("bytes=", size-1, "-"), size - 1, size},
				{"bytes=1000-3000", 1000, 3001}, {"bytes=99999999999999999999-", 0, -1}, {"bytes=2-99999999999999999999", 2, size},
				{"bytes=3-2", -1, 0}, {"bytes=0-1,3-4", -1, 0}, {"lines=0-1", -1, 0}, {"bytes=a-b", -1, 0}, {"bytes=-", -1, 0}, {"bytes=--1", -1, 0},
			} {
				if size == 0 && r.a == size-1 {
					continue
				}
				code, out, header := l.do("GET", path, "", "Range: "+r.spec)
				note := qt.Commentf("%d bytes, %s: %.60q", size, r.spec, out)
				switch r.b = min(r.b, size); {
				case r.a < 0:
					qt.Check(t, qt.Equals(code, 200), note)
					qt.Check(t, qt.IsTrue(out == v), note)
				case r.b <= r.a:
					qt.Check(t, qt.Equals(code, 416), note)
					qt.Check(t, qt.Equals(header.Get("Content-Range"), fmt.Sprint("bytes */", size)), note)
				default:
					qt.Check(t, qt.Equals(code, 206), note)
					qt.Check(t, qt.IsTrue(out == v[r.a:r.b]), note)
					qt.Check(t, qt.Equals(header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/%d", r.a, r.b-1, size)), note)
					qt.Check(t, qt.Equals(header.Get("ETag"), tag), note)
					qt.Check(t, qt.Equals(header.Get("Content-Type"), typeOf(ctype)), note)
				}
			}
			if size < 2 {
				continue
			}
			want := func(code int, fields ...string) {
				t.Helper()
				got, _, _ := l.do("GET", path, "", append(fields, "Range: bytes=0-1")...)
				qt.Check(t, qt.Equals(got, code))
			}
			want(206, "If-Range: "+tag)
			want(200, `If-Range: "other"`)
			want(200, "If-Range: W/"+tag)
			want(200, "If-Range: Tue, 24 Nov 2026 00:00:00 GMT")
			want(206, "If-Match: "+tag)
			want(412, `If-Match: "other"`)
			want(304, "If-None-Match: "+tag)
			code, _, header := l.do("HEAD", path, "", "Range: bytes=0-1")
			qt.Check(t, qt.Equals(code, 200))
			qt.Check(t, qt.Equals(header.Get("Accept-Ranges"), "bytes"))
			qt.Check(t, qt.Equals(header.Get("Content-Length"), fmt.Sprint(size)))
		}
	}
}

func typeOf(ctype string) string {
	if ctype == "" {
		return "application/octet-stream"
	}
	return ctype
}

// A value has the type that it was put with, in every answer, and the tag that PUT has
// told.
func TestContentType(t *testing.T) {
	l := openLocal(t, 1, httpd.Config{})
	long := "multipart/form-data; boundary=" + strings.Repeat("b", 70)
	for _, size := range sizes {
		for i, ctype := range []string{"", "text/html; charset=utf-8", long, "application/octet-stream", ""} {
			path, v := fmt.Sprint("/k/", size), text(size)
			code, _, header := l.do("PUT", path, v, "Content-Type: "+ctype)
			qt.Check(t, qt.Equals(code, map[bool]int{true: 201, false: 204}[i == 0]))
			tag := header.Get("ETag")
			for _, method := range []string{"GET", "HEAD"} {
				for _, field := range []string{"A: b", "Connection: close"} {
					code, out, header := l.do(method, path, "", field)
					note := qt.Commentf("%s of %d bytes, %s", method, size, ctype)
					qt.Check(t, qt.Equals(code, 200), note)
					qt.Check(t, qt.Equals(header.Get("Content-Type"), typeOf(ctype)), note)
					qt.Check(t, qt.Equals(header.Get("ETag"), tag), note)
					qt.Check(t, qt.IsTrue(method == "HEAD" || out == v), note)
				}
			}
		}
	}
	code, out, _ := l.do("PUT", "/k/x", "v", "Content-Type: "+strings.Repeat("t", 101))
	qt.Check(t, qt.Equals(code, 400))
	qt.Check(t, qt.Equals(out, "a Content-Type has at most 100 bytes\n"))
	code, _, _ = l.do("PUT", "/k/x", "v", "Content-Encoding: gzip")
	qt.Check(t, qt.Equals(code, 415))
}

// Values with types and times are the same after the store was opened again, from its
// log and from its tree.
func TestTypeReplayed(t *testing.T) {
	l := openLocal(t, 1, httpd.Config{})
	for _, size := range sizes {
		l.do("PUT", fmt.Sprintf("/k/%d?ttl=1000", size), text(size), "Content-Type: text/plain")
	}
	for _, again := range []string{"log", "tree"} {
		if again == "tree" {
			qt.Assert(t, qt.IsNil(l.store.Checkpoint()))
		}
		o := l.reopen()
		for _, size := range sizes {
			code, out, header := o.do("GET", fmt.Sprint("/k/", size), "")
			qt.Check(t, qt.Equals(code, 200))
			qt.Check(t, qt.IsTrue(out == text(size)), qt.Commentf("%s: %d bytes", again, size))
			qt.Check(t, qt.Equals(header.Get("Content-Type"), "text/plain"))
			qt.Check(t, qt.Not(qt.Equals(header.Get("Expires"), "")))
		}
		l = o
	}
}

// Keys of any bytes can be stored, and listed page by page: a line of a list is what
// stands in a path, and behind after=.
func TestPages(t *testing.T) {
	l := openLocal(t, 1, httpd.Config{})
	want := map[string]bool{}
	for i := range 256 {
		for _, k := range []string{string([]byte{byte(i)}), "a" + string([]byte{byte(i)}) + "z", strings.Repeat(string([]byte{byte(i)}), 85)} {
			code, _, _ := l.do("PUT", "/k/"+escape(k), k)
			qt.Assert(t, qt.Equals(code, 201), qt.Commentf("%q", k))
			want[k] = true
		}
	}
	got, after, last := map[string]bool{}, "", ""
	for {
		code, out, _ := l.do("GET", "/k?limit=7"+after, "")
		qt.Assert(t, qt.Equals(code, 200))
		lines := strings.Fields(out)
		for _, line := range lines {
			k, err := url.PathUnescape(line)
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsTrue(k > last), qt.Commentf("%q comes after %q", k, last))
			last, got[k] = k, true
			code, out, _ := l.do("GET", "/k/"+line, "")
			qt.Assert(t, qt.Equals(code, 200))
			qt.Assert(t, qt.Equals(out, k))
		}
		if len(lines) < 7 {
			break
		}
		after = "&after=" + lines[6]
	}
	qt.Check(t, qt.DeepEquals(got, want))
}

func escape(k string) string {
	var b strings.Builder
	for _, c := range []byte(k) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// Nothing behind a key is ignored.
func TestParametersRefused(t *testing.T) {
	l := openLocal(t, 1, httpd.Config{})
	for _, r := range []string{"PUT /k/a?ttl=0", "PUT /k/a?ttl=x", "PUT /k/a?ttl=1&ttl=2", "PUT /k/a?TTL=1", "GET /k/a?ttl=1",
		"DELETE /k/a?x", "PUT /k/a?ttl=3153600001", "POST /k?x=1"} {
		method, path, _ := strings.Cut(r, " ")
		code, _, _ := l.do(method, path, "")
		qt.Check(t, qt.Equals(code, 400), qt.Commentf("%s", r))
	}
	code, _, header := l.do("PUT", "/k", "")
	qt.Check(t, qt.Equals(code, 405))
	qt.Check(t, qt.Equals(header.Get("Allow"), "GET, HEAD, POST"))
}

func TestBatch(t *testing.T) {
	l := openLocal(t, 2, httpd.Config{})
	all := string([]byte{0, 255, '%', ' ', 7})
	code, out, _ := l.do("POST", "/k", `{"put":"a","text":"one"}
		{"put":"`+escape(all)+`","data":"`+base64.StdEncoding.EncodeToString([]byte(all))+`","type":"image/png"}
		{"put":"big","text":"`+text(20_000)+`"} {"put":"typed","text":"`+text(20_000)+`","type":"text/plain","ttl":1000}
		{"put":"empty","text":""}`)
	qt.Assert(t, qt.Equals(code, 204), qt.Commentf("%s", out))
	get := func(key, want, ctype string) string {
		t.Helper()
		code, out, header := l.do("GET", "/k/"+escape(key), "")
		qt.Check(t, qt.Equals(code, 200))
		qt.Check(t, qt.IsTrue(out == want), qt.Commentf("%.40q", out))
		qt.Check(t, qt.Equals(header.Get("Content-Type"), typeOf(ctype)))
		return header.Get("ETag")
	}
	tag := get("a", "one", "")
	get(all, all, "image/png")
	get("big", text(20_000), "")
	get("typed", text(20_000), "text/plain")
	get("empty", "", "")
	// All or none.
	for _, r := range []struct {
		body, want string
		code       int
	}{
		{`{"put":"a","text":"two"}{"delete":"big","if_match":"\"other\""}`, "operation 2: the condition does not hold; nothing was changed\n", 412},
		{`{"put":"a","text":"two"}{"put":"a","text":"x","if_none_match":"*"}`, "operation 2: the condition does not hold; nothing was changed\n", 412},
		{`{"put":"a","text":"two"}{"put":"b"}`, "operation 2: put has either text or data, which is the value in base64\n", 400},
		{`{"put":"a","text":"two"}{"put":"b","text":"x","extra":1}`, "operation 2: json: unknown field \"extra\"\n", 400},
		{`{"put":"a","text":"two"}{"put":"%","text":"x"}`, "operation 2: a key has 1 to 255 bytes, percent-encoded\n", 400},
		{`{"put":"a","text":"x","type":"a\r\nb: c"}`, "operation 1: type is a Content-Type of at most 100 printable characters\n", 400},
		{`{"delete":"a","ttl":1}`, "operation 1: delete has neither text, data, type nor ttl\n", 400},
		{``, "a batch has at least one operation, a line of JSON for each\n", 400},
		{strings.Repeat(`{"delete":"a"}`, maxBatch+1), "a batch has at most 1000 operations\n", 400},
		{`{"put":"a","text":"` + text(maxBatchBytes) + `"}`, "a batch has at most 1048576 bytes\n", 413},
	} {
		code, out, _ := l.do("POST", "/k", r.body)
		qt.Check(t, qt.Equals(code, r.code))
		qt.Check(t, qt.Equals(out, r.want))
		qt.Check(t, qt.Equals(get("a", "one", ""), tag))
	}
	code, out, _ = l.do("POST", "/k", `{"put":"a","text":"two","if_match":`+strconv.Quote(tag)+`}{"delete":"big"}{"delete":"none"}{"put":"new","text":"n","if_none_match":"*"}{"put":"a","text":"three"}`)
	qt.Assert(t, qt.Equals(code, 204), qt.Commentf("%s", out))
	get("a", "three", "")
	code, _, _ = l.do("POST", "/k", `{"delete":"a"}`, "Idempotency-Key: k")
	qt.Check(t, qt.Equals(code, 501))
	get("new", "n", "")
	code, _, _ = l.do("GET", "/k/big", "")
	qt.Check(t, qt.Equals(code, 404))
}

// A value is gone when its time has come, for every request, and then its room comes
// back by itself.
func TestTTL(t *testing.T) {
	l := openLocal(t, 2, httpd.Config{})
	for _, size := range sizes {
		code, _, _ := l.do("PUT", fmt.Sprintf("/k/%d?ttl=100", size), text(size))
		qt.Check(t, qt.Equals(code, 201))
	}
	long := strings.Repeat("k", 255)
	l.do("PUT", "/k/"+long+"?ttl=100", "v")
	l.do("PUT", "/k/stays", "v")
	l.do("PUT", "/k/longer?ttl=100", "v")
	l.do("PUT", "/k/longer?ttl=10000", "v")
	l.do("PUT", "/k/kept?ttl=100", "v")
	l.do("PUT", "/k/kept", "v")
	_, _, header := l.do("HEAD", "/k/10", "")
	at, err := time.Parse(time.RFC1123, header.Get("Expires"))
	qt.Assert(t, qt.IsNil(err))
	qt.Check(t, qt.Equals(at.Sub(l.clock()), 101*time.Second)) // never earlier than asked for
	_, before, _ := l.do("GET", "/k", "")
	qt.Check(t, qt.HasLen(strings.Fields(before), len(sizes)+4))
	l.forward(102 * time.Second)
	// The sweep may come before these or behind.
	code, _, _ := l.do("GET", "/k/10", "")
	qt.Check(t, qt.Equals(code, 404))
	code, _, _ = l.do("HEAD", "/k/5000", "")
	qt.Check(t, qt.Equals(code, 404))
	code, _, _ = l.do("DELETE", "/k/1000", "")
	qt.Check(t, qt.Equals(code, 404))
	code, _, _ = l.do("PUT", "/k/64", "new", `If-Match: *`)
	qt.Check(t, qt.Equals(code, 412))
	code, _, _ = l.do("PUT", "/k/64", "new", `If-None-Match: *`)
	qt.Check(t, qt.Equals(code, 201))
	_, out, _ := l.do("GET", "/k", "")
	qt.Check(t, qt.Equals(out, "64\nkept\nlonger\nstays\n"))
	for end := time.Now().Add(3 * time.Minute); l.store.Len() != 4; time.Sleep(time.Millisecond) {
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("%d keys are left", l.store.Len()))
	}
}

// curl, as a newcomer uses it.
func TestCurl(t *testing.T) {
	l := openLocal(t, 1, httpd.Config{})
	dir := t.TempDir()
	curl := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("curl", append([]string{"-sS"}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
		return string(out)
	}
	curl("--data-binary", text(50_000), "-H", "Content-Type: text/plain", "-X", "PUT", l.url+"/k/a%20b")
	qt.Check(t, qt.Equals(curl("-o", "out", "-w", "%{http_code} %{content_type}", "-r", "0-29999", l.url+"/k/a%20b"), "206 text/plain"))
	qt.Check(t, qt.Equals(curl("-o", "out", "-w", "%{http_code}", "-C", "-", l.url+"/k/a%20b"), "206"))
	qt.Check(t, qt.Equals(curl("-T", filepath.Join(dir, "out"), "-w", "%{http_code}", l.url+"/k/copy"), "201"))
	_, out, _ := l.do("GET", "/k/copy", "")
	qt.Check(t, qt.IsTrue(out == text(50_000)))
	curl("--etag-save", "tag", "-o", "out", l.url+"/k/copy")
	qt.Check(t, qt.Equals(curl("--etag-compare", "tag", "-o", "none", "-w", "%{http_code}", l.url+"/k/copy"), "304"))
	qt.Check(t, qt.Equals(curl(l.url+"/k"), "a%20b\ncopy\n"))
}
