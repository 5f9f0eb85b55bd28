package httpd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

const (
	closing = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	x8      = "xxxxxxxx"
	okKeep  = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + x8
	okClose = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\n" + x8
)

func post(body string) string {
	return fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func created(seq int) string {
	n := fmt.Sprint(seq)
	return fmt.Sprintf("HTTP/1.1 201 Created\r\nX-Paste-Seq: %s\r\nContent-Length: %d\r\n\r\n%s\n", n, len(n)+1, n)
}

type conversation struct {
	name, in, want string
	stored         []string
}

func conversations() []conversation {
	long := strings.Repeat("0123456789abcdef", 1000)
	return []conversation{
		{name: "get", in: closing, want: okClose},
		{name: "keep-alive", in: "GET /a HTTP/1.1\r\nHost: x\r\n\r\n" + closing, want: okKeep + okClose},
		{name: "head", in: "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" + closing, want: strings.TrimSuffix(okKeep, x8) + okClose},
		{name: "1.0", in: "GET / HTTP/1.0\r\n\r\n", want: okClose},
		{
			name: "1.0 keep-alive", in: "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + closing,
			want: "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 8\r\n\r\n" + x8 + okClose,
		},
		{name: "post", in: post("hello") + closing, want: created(1) + okClose, stored: []string{"hello"}},
		{name: "empty body", in: post("") + closing, want: created(1) + okClose, stored: []string{""}},
		{
			name: "several bodies", in: post("a") + post("") + post("bc") + post(long) + post("d") + closing,
			want:   created(1) + created(2) + created(3) + created(4) + created(5) + okClose,
			stored: []string{"a", "", "bc", long, "d"},
		},
		{
			name: "chunked",
			in: "PUT /f HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" +
				"5\r\nhello\r\n1;x=y\r\n \r\n3e80\r\n" + long + "\r\n0\r\nA: b\r\n\r\n" + closing,
			want: created(1) + okClose, stored: []string{"hello " + long},
		},
		{
			name: "100-continue", in: "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n" + closing,
			want: created(1) + okClose, stored: []string{""},
		},
		{
			name: "method", in: "DELETE / HTTP/1.1\r\nHost: x\r\n\r\n" + closing,
			want: string(render(405, formKeep, "Allow: GET, HEAD, POST, PUT\r\n", "only GET, HEAD, POST and PUT are served\n")) + okClose,
		},
		{
			name: "conditions",
			in: "PUT / HTTP/1.1\r\nHost: x\r\nIf-Match: *\r\nContent-Length: 3\r\n\r\nabc" +
				"PUT / HTTP/1.1\r\nHost: x\r\nContent-Range: bytes 0-2/9\r\nContent-Length: 3\r\n\r\nabc" +
				"PUT / HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\nContent-Length: 3\r\n\r\nnew" + closing,
			want: string(render(412, formKeep, "", "what is stored here has neither tags nor times\n")) +
				string(render(501, formKeep, "", "a part of something cannot be stored\n")) + created(1) + okClose,
			stored: []string{"new"},
		},
		{
			name: "malformed after good", in: post("kept") + "BROKEN\r\n\r\n" + closing,
			want: created(1) + string(render(400, formClose, "", "malformed request line\n")), stored: []string{"kept"},
		},
		{
			name: "smuggling", in: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			want: string(render(400, formClose, "", "more than one body length\n")),
		},
		{
			name: "bad chunk gives nothing", in: "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX",
			want: string(render(400, formClose, "", "malformed chunk\n")),
		},
		{
			name: "too large", in: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20001\r\n\r\n" + long,
			want: string(render(413, formClose, "", "body is larger than the limit\n")),
		},
		{
			name: "too large in chunks", in: "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e80\r\n" + long + "\r\n3e80\r\n" + long,
			want: string(render(413, formClose, "", "body is larger than the limit\n")),
		},
	}
}

func TestConversations(t *testing.T) {
	for _, tc := range conversations() {
		for _, mss := range []int{1, 7, 100, 1448, 1900} {
			for _, persist := range []Persist{PersistZeroCopy, PersistCopy} {
				t.Run(fmt.Sprintf("%s/%d/%s", tc.name, mss, persist), func(t *testing.T) {
					f := serve(t, setup{cfg: Config{ResponseBytes: 8, Persist: persist, BodyLimit: 20000}, mss: mss})
					qt.Assert(t, qt.Equals(f.talk(tc.in), tc.want))
					qt.Assert(t, qt.DeepEquals(f.records(), tc.stored))
				})
			}
		}
	}
}
