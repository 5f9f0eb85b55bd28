package httpd

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/seed"
)

// TestMixedPipeline: whatever clients ask for in a row, cut anywhere, and however
// fast they read, each answer is there, in its place, and each body is in the log.
func TestMixedPipeline(t *testing.T) {
	rng := seed.New(t)
	for _, mss := range []int{90, 1448, 1900} {
		f := serve(t, setup{cfg: Config{ResponseBytes: 70_000}, poolSize: 64 << 20, mss: mss})
		sent := make(chan []string, 6)
		errs := make(chan error, 12)
		for range cap(sent) {
			c := f.dial()
			var in strings.Builder
			var kinds, bodies []string
			for range 60 {
				switch kind := []string{"get", "head", "post", "chunked"}[rng.IntN(4)]; kind {
				case "get", "head":
					fmt.Fprintf(&in, "%s / HTTP/1.1\r\nHost: x\r\n\r\n", strings.ToUpper(kind))
					kinds = append(kinds, kind)
				default:
					body := strings.Repeat(fmt.Sprintf("%08x", rng.Uint32()), rng.IntN(3000))
					if kind == "post" {
						in.WriteString(post(body))
					} else {
						fmt.Fprintf(&in, "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
						if body != "" {
							fmt.Fprintf(&in, "%x\r\n%s\r\n", len(body), body)
						}
						in.WriteString("0\r\n\r\n")
					}
					kinds, bodies = append(kinds, kind), append(bodies, body)
				}
			}
			slow := time.Duration(rng.IntN(3)) * time.Millisecond
			go func() {
				_, err := io.WriteString(c, in.String())
				errs <- err
			}()
			go func() {
				errs <- readAnswers(bufio.NewReaderSize(c, 4096), kinds, slow)
				sent <- bodies
			}()
		}
		want := map[string]int{}
		for range cap(sent) {
			for _, b := range <-sent {
				want[b]++
			}
		}
		for range cap(errs) {
			qt.Check(t, qt.IsNil(within(errs)))
		}
		for _, b := range f.records() {
			want[b]--
		}
		for b, n := range want {
			qt.Check(t, qt.Equals(n, 0), qt.Commentf("body of %d bytes", len(b)))
		}
	}
}

// readAnswers reads the answers to requests of these kinds, with a pause before each.
func readAnswers(in *bufio.Reader, kinds []string, pause time.Duration) error {
	for i, kind := range kinds {
		time.Sleep(pause)
		method, status, length := http.MethodPost, 201, -1
		switch kind {
		case "get":
			method, status, length = http.MethodGet, 200, 70_000
		case "head":
			method, status, length = http.MethodHead, 200, 0
		}
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return fmt.Errorf("answer %d, %s: %w", i, kind, err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != status || length >= 0 && len(b) != length {
			return fmt.Errorf("answer %d, %s: %s, %d bytes, %v", i, kind, resp.Status, len(b), err)
		}
	}
	return nil
}
