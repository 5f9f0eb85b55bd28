package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/serve"
)

// shBlocks returns the blocks of commands of a page under docs.
func shBlocks(t *testing.T, page string) (blocks []string) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
	qt.Assert(t, qt.IsNil(err))
	for _, part := range strings.Split(string(b), "\n```sh\n")[1:] {
		block, _, ok := strings.Cut(part, "```\n")
		qt.Assert(t, qt.IsTrue(ok))
		blocks = append(blocks, block)
	}
	return blocks
}

// reader runs as a block tells as long as there is a server, and has what it printed.
type reader struct {
	block string
	mu    sync.Mutex
	out   bytes.Buffer
	done  chan error
}

func (r *reader) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(b)
}

func (r *reader) has(s string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(r.out.String(), s)
}

// follow starts a block that goes on until the server ends.
func follow(dir, block string) *reader {
	r := &reader{block: block, done: make(chan error, 1)}
	cmd := bash(dir, block)
	cmd.Stdout = r
	go func() { r.done <- cmd.Run() }()
	return r
}

func bash(dir, block string) *exec.Cmd {
	cmd := exec.Command("bash", "-c", block)
	cmd.Dir = dir
	return cmd
}

// page has a server run as a page of docs says in its first block, and everything
// that the page says is done to it. A line that begins with "$ " is a command, and what
// follows is what it prints; a block that waits for records goes on until the end, when
// a record comes that all of these must print.
func page(t *testing.T, name, server string, files map[string]string) {
	blocks := shBlocks(t, name)
	dir := t.TempDir()
	for file, text := range files {
		qt.Assert(t, qt.IsNil(os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600)))
	}
	args := strings.Fields(blocks[0])
	qt.Assert(t, qt.DeepEquals(args[:5], []string{"pastectl", "serve", server, "--listen", ":8080"}))
	qt.Assert(t, qt.Equals(args[5], "--pool"))
	args = append([]string{server, "--listen", "127.0.0.1:0", "--pool", filepath.Join(serveDir(t), "pool"), "--pool-size", "32MiB"}, args[7:]...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, done := serving(ctx, t, args...)
	ready := next(t, events)
	qt.Assert(t, qt.Equals(ready.Event, serve.Ready))

	var readers []*reader
	for i, block := range blocks[1:] {
		block = strings.ReplaceAll(block, "http://localhost:8080", ready.URL)
		switch {
		case strings.HasPrefix(block, "$ "):
			for _, c := range strings.Split("\n"+block, "\n$ ")[1:] {
				command, want, _ := strings.Cut(c, "\n")
				out, err := bash(dir, command).Output()
				qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", command))
				qt.Check(t, qt.Equals(plainOutput(string(out)), plainOutput(want)), qt.Commentf("%s", command))
			}
		case strings.Contains(block, "wait=") || strings.Contains(block, "curl -sS -N"):
			own := filepath.Join(dir, fmt.Sprint(i))
			qt.Assert(t, qt.IsNil(os.Mkdir(own, 0o700)))
			readers = append(readers, follow(own, block))
		default:
			out, err := bash(dir, block).CombinedOutput()
			qt.Assert(t, qt.IsNil(err), qt.Commentf("%s: %s", block, out))
		}
	}
	last(t, ready.URL, readers)
	cancel()
	qt.Assert(t, qt.Equals(next(t, events).Event, serve.Stopped))
	qt.Assert(t, qt.IsNil(within(done)))
	for _, r := range readers {
		select {
		case <-r.done: // with the error of the last curl
		case <-time.After(3 * time.Minute):
			t.Fatalf("it goes on although the server has ended: %s", r.block)
		}
	}
}

// last stores a record until all readers have printed it: one that follows may have
// begun behind the first.
func last(t *testing.T, url string, readers []*reader) {
	const raw, base64 = "the last record", "dGhlIGxhc3QgcmVjb3Jk"
	for end := time.Now().Add(3 * time.Minute); len(readers) > 0; time.Sleep(20 * time.Millisecond) {
		missing := ""
		for _, r := range readers {
			if !r.has(raw) && !r.has(base64) {
				missing = r.block
			}
		}
		if missing == "" {
			return
		}
		qt.Assert(t, qt.IsTrue(time.Now().Before(end)), qt.Commentf("it has not printed the last record: %s", missing))
		resp, err := http.Post(url+"/", "", strings.NewReader(raw))
		qt.Assert(t, qt.IsNil(err))
		_, err = io.Copy(io.Discard, resp.Body)
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
	}
}

// plainOutput is what a command prints, without what differs from run to run.
func plainOutput(s string) string {
	s = strings.ReplaceAll(s, "\r", "")
	s = regexp.MustCompile(`ETag: "[-\w]+"`).ReplaceAllString(s, `ETag: "…"`)
	return strings.TrimSpace(s)
}

func TestIntakePage(t *testing.T) { page(t, "intake.md", "http", nil) }

func TestKVPage(t *testing.T) {
	page(t, "kv.md", "kv", map[string]string{"report.pdf": strings.Repeat("%PDF", 12500)})
}
