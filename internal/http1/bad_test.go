package http1

import (
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

type badCase struct {
	name, in string
	want     *Error
}

// badCases are requests that must be refused, each for its reason.
func badCases() []badCase {
	with := func(fields string) string { return "POST / HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n\r\n" }
	chunk := func(s string) string { return with("Transfer-Encoding: chunked") + s }
	return []badCase{
		{"garbage", "\x16\x03\x01\x02\x00", ErrRequestLine},
		{"no target", "GET HTTP/1.1\r\nHost: x\r\n\r\n", ErrRequestLine},
		{"two spaces", "GET  / HTTP/1.1\r\nHost: x\r\n\r\n", ErrRequestLine},
		{"space in target", "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", ErrRequestLine},
		{"control in target", "GET /a\x01b HTTP/1.1\r\nHost: x\r\n\r\n", ErrRequestLine},
		{"high byte in target", "GET /aaaaaaaaaaaa\x80 HTTP/1.1\r\nHost: x\r\n\r\n", ErrRequestLine},
		{"delete in target", "GET /aaaaaaaaaaaa\x7f HTTP/1.1\r\nHost: x\r\n\r\n", ErrRequestLine},
		{"0.9", "GET /\r\n", ErrRequestLine},
		{"lower-case version", "GET / http/1.1\r\n\r\n", ErrRequestLine},
		{"version 2", "GET / HTTP/2.0\r\nHost: x\r\n\r\n", ErrVersion},
		{"version 1.2", "GET / HTTP/1.2\r\nHost: x\r\n\r\n", ErrVersion},
		{"bare LF after line", "GET / HTTP/1.1\nHost: x\n\n", ErrRequestLine},
		{"bare LF after field", "GET / HTTP/1.1\r\nHost: x\n\n", ErrBareLF},
		{"bare LF at the end", "GET / HTTP/1.1\r\nHost: x\r\n\n", ErrBareLF},
		{"bare CR in field", with("X: a\rb"), ErrField},
		{"no host", "GET / HTTP/1.1\r\n\r\n", ErrHost},
		{"two hosts", with("HOST: y"), ErrHost},
		{"space before colon", with("Content-Length : 1"), ErrField},
		{"folded line", with("X: a\r\n b"), ErrField},
		{"no colon", with("Xa"), ErrField},
		{"empty name", with(": a"), ErrField},
		{"NUL in value", with("X: aaaaaaaaaaa\x00"), ErrField},
		{"delete in value", with("X: aaaaaaaa\x7faaaaaa"), ErrField},
		{"negative length", with("Content-Length: -1"), ErrContentLength},
		{"plus length", with("Content-Length: +1"), ErrContentLength},
		{"hex length", with("Content-Length: 0x10"), ErrContentLength},
		{"empty length", with("Content-Length:"), ErrContentLength},
		{"length list", with("Content-Length: 5, 5"), ErrContentLength},
		{"length overflow", with("Content-Length: 9223372036854775808"), ErrContentLength},
		{"long overflow", with("Content-Length: 18446744073709551617"), ErrContentLength},
		{"same length twice", with("Content-Length: 5\r\nContent-Length: 5"), ErrRepeatedLength},
		{"two lengths", with("Content-Length: 5\r\nContent-Length: 6"), ErrRepeatedLength},
		{"length and chunked", with("Content-Length: 5\r\nTransfer-Encoding: chunked"), ErrRepeatedLength},
		{"chunked and length", with("Transfer-Encoding: chunked\r\nContent-Length: 5"), ErrRepeatedLength},
		{"chunked twice", with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), ErrRepeatedLength},
		{"gzip", with("Transfer-Encoding: gzip, chunked"), ErrTransferEncoding},
		{"obfuscated chunked", with("Transfer-Encoding: \x0bchunked"), ErrField},
		{"chunked 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", ErrChunkedHTTP10},
		{"expectation", with("Expect: miracles"), ErrExpect},
		{"long line", "GET /" + strings.Repeat("a", MaxHeader) + " HTTP/1.1\r\n\r\n", ErrHeaderTooLarge},
		{"many fields", with(strings.Repeat("A: b\r\n", MaxHeader/6) + "A: b"), ErrHeaderTooLarge},
		{"empty lines without end", strings.Repeat("\r\n", MaxHeader/2), ErrHeaderTooLarge},
		{"chunk without size", chunk("\r\n"), ErrChunk},
		{"chunk size sign", chunk("-1\r\n"), ErrChunk},
		{"chunk size blank", chunk("1 \r\n"), ErrChunk},
		{"chunk size 0x", chunk("0x1\r\n"), ErrChunk},
		{"chunk size overflow", chunk("1000000000000000\r\n"), ErrChunk},
		{"chunk bare LF", chunk("1\n"), ErrChunk},
		{"chunk extension with LF", chunk("1;a\nb\r\n"), ErrChunk},
		{"chunk extension too long", chunk("1;" + strings.Repeat("a", maxChunkExt+1)), ErrChunk},
		{"chunk too long", chunk("1\r\nab\r\n"), ErrChunk},
		{"chunk CR only", chunk("1\r\na\rx"), ErrChunk},
		{"trailer", chunk("0\r\nbad trailer\r\n\r\n"), ErrField},
		{"trailer bare LF", chunk("0\r\n\n"), ErrBareLF},
		{"trailers too long", chunk("0\r\n" + strings.Repeat("A: b\r\n", MaxHeader/6+1)), ErrHeaderTooLarge},
	}
}

func TestBad(t *testing.T) {
	for _, tc := range badCases() {
		t.Run(tc.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 3, 7, 100, len(tc.in)} {
				var p Parser
				got, err := parse(&p, pieces(tc.in, size)...)
				qt.Assert(t, qt.Equals(err, tc.want), qt.Commentf("pieces of %d", size))
				for _, m := range got {
					qt.Assert(t, qt.IsFalse(m.Complete))
				}
				// An error is final, and Reset forgets it.
				_, again := parse(&p, []byte(get))
				qt.Assert(t, qt.Equals(again, tc.want))
				p.Reset()
				_, again = parse(&p, []byte(get))
				qt.Assert(t, qt.IsNil(again))
			}
		})
	}
}
