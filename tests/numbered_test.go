package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/childproc"
	"github.com/pastenet/paste/internal/netlab"
)

// What testdata/numbered.lua is told, and the curl writers do too.
const (
	wrkThreads  = 16  // w0, w1 …: a connection each
	wrkDepth    = 4   // requests that each connection sends at once
	curlWriters = 3   // c0, c1 …
	ownKeys     = 101 // of each writer, in a kv: request n is about key n mod ownKeys
	everyDelete = 7   // request n deletes, in a kv, if it is divisible by this
	perRound    = 10_000_000
)

// note is a request that was answered with success.
type note struct {
	n, size int    // size 0 in a kv is a delete
	answer  uint64 // the record's number, or the status
}

func isDelete(n int) bool { return n%everyDelete == 0 }

// numberedBody tells whose it is, which one, and how long.
func numberedBody(writer string, n, size int) []byte {
	tag := fmt.Sprintf("%s-%d-%d;", writer, n, size)
	return []byte(strings.Repeat(tag, size/len(tag)+1)[:size])
}

// parseNumbered fails if a body is not, to the last byte, what its beginning
// says.
func parseNumbered(b []byte) (writer string, n int, err error) {
	tag, _, _ := bytes.Cut(b[:min(len(b), 40)], []byte(";"))
	part := strings.Split(string(tag), "-")
	if len(part) == 3 {
		n, _ = strconv.Atoi(part[1])
		size, _ := strconv.Atoi(part[2])
		if size == len(b) && bytes.Equal(b, numberedBody(part[0], n, size)) {
			return part[0], n, nil
		}
	}
	return "", 0, fmt.Errorf("%d bytes that nobody sent like that: %.60q", len(b), b)
}

// writers are wrk and some curls that write to a server as fast as it can,
// until it is gone.
type writers struct {
	t     testing.TB
	l     *netlab.Lab
	kind  string
	dir   string
	first int
	wrk   *netlab.Cmd
	out   childproc.Tail
	wg    sync.WaitGroup
	mu    sync.Mutex
	curls map[string][]note
	errs  []error
}

func startWriters(t testing.TB, l *netlab.Lab, kind, url string, first int) *writers {
	t.Helper()
	w := &writers{t: t, l: l, kind: kind, dir: t.TempDir(), first: first, curls: map[string][]note{}}
	threads := strconv.Itoa(wrkThreads)
	w.wrk = l.ClientCommand(context.Background(), "wrk", "-t"+threads, "-c"+threads, "-d", "10m", "--timeout", "10m",
		"-s", "testdata/numbered.lua", url, "--", kind, w.dir,
		strconv.Itoa(first), strconv.Itoa(wrkDepth), strconv.Itoa(ownKeys), strconv.Itoa(everyDelete))
	w.wrk.Stdout, w.wrk.Stderr = &w.out, &w.out
	qt.Assert(t, qt.IsNil(w.wrk.Start()))
	for i := range curlWriters {
		w.wg.Add(1)
		go func() {
			defer w.wg.Done()
			w.curl(i, url)
		}()
	}
	return w
}

// curl runs one curl after the other, until one gets no answer.
func (w *writers) curl(i int, url string) {
	name := "c" + strconv.Itoa(i)
	file := filepath.Join(w.dir, name+".body")
	rng := rand.New(rand.NewPCG(uint64(w.first), uint64(i)))
	for n := w.first + 1; ; n++ {
		path, size := "/", 50+rng.IntN(1<<(6+rng.IntN(12)))
		if w.kind == "kv" {
			path = fmt.Sprintf("/k/%s-%d", name, n%ownKeys)
		}
		body := numberedBody(name, n, size)
		var how []string
		var stdin []byte
		switch {
		case w.kind == "kv" && isDelete(n):
			how, size = []string{"-X", "DELETE"}, 0
		case i%3 == 0: // its length is known
			if err := os.WriteFile(file, body, 0o600); err != nil {
				w.fail(err)
				return
			}
			how = []string{"-T", file}
		case i%3 == 1: // chunked
			how, stdin = []string{"-T", "-"}, body
		default:
			how, stdin = []string{"-X", "PUT", "--data-binary", "@-"}, body
		}
		var out bytes.Buffer
		c := w.l.ClientCommand(context.Background(), "curl", append(how, "-s", "-m", "180", "-w", "\n%{http_code}", url+path)...)
		c.Stdin, c.Stdout = bytes.NewReader(stdin), &out
		if c.Run() != nil {
			return // killed
		}
		words := strings.Fields(out.String()) // the record's number, if it is told, and the status
		code := words[len(words)-1]
		if code == "507" && w.kind == "http" {
			return // nobody truncates its log
		}
		if code != "201" && code != "204" && (code != "404" || size != 0) {
			w.fail(fmt.Errorf("%s got %q for number %d of %d bytes", name, out.String(), n, size))
			return
		}
		var answer uint64
		if w.kind == "http" {
			var err error
			if answer, err = strconv.ParseUint(words[0], 10, 64); err != nil {
				w.fail(fmt.Errorf("%s got %q", name, out.String()))
				return
			}
		}
		w.mu.Lock()
		w.curls[name] = append(w.curls[name], note{n, size, answer})
		w.mu.Unlock()
	}
}

func (w *writers) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errs = append(w.errs, err)
}

// noted reports whether something has been acknowledged to wrk and to a curl.
func (w *writers) noted() bool {
	w.mu.Lock()
	curls, failed := len(w.curls), len(w.errs)
	w.mu.Unlock()
	if failed > 0 {
		return true // end tells
	}
	files, _ := filepath.Glob(filepath.Join(w.dir, "w*"))
	for _, f := range files {
		if s, err := os.Stat(f); err == nil && s.Size() > 0 && curls > 0 {
			return true
		}
	}
	return false
}

// end is for when the server is gone. It returns what each writer noted, in the
// order of its numbers.
func (w *writers) end() map[string][]note {
	w.t.Helper()
	w.wg.Wait()
	waitFor(w.t, func() bool {
		for i := range wrkThreads {
			// It cannot be there yet, before wrk's thread runs.
			text, _ := os.ReadFile(filepath.Join(w.dir, "w"+strconv.Itoa(i)))
			if !bytes.Contains(text, []byte("gone\n")) {
				return false
			}
		}
		return true
	})
	qt.Assert(w.t, qt.IsNil(w.wrk.Process.Kill()), qt.Commentf("%s", &w.out))
	_ = w.wrk.Wait() // killed
	qt.Assert(w.t, qt.IsNil(errors.Join(w.errs...)))
	all := w.curls
	for i := range wrkThreads {
		name := "w" + strconv.Itoa(i)
		text, err := os.ReadFile(filepath.Join(w.dir, name))
		qt.Assert(w.t, qt.IsNil(err))
		for line := range strings.Lines(string(text)) {
			if line == "gone\n" {
				break
			}
			var n note
			_, err := fmt.Sscanf(line, "%d %d %d\n", &n.n, &n.size, &n.answer)
			qt.Assert(w.t, qt.IsNil(err), qt.Commentf("%s: %q", name, line))
			all[name] = append(all[name], n)
		}
		failed, err := os.ReadFile(filepath.Join(w.dir, name+".failed"))
		qt.Assert(w.t, qt.IsTrue(os.IsNotExist(err)), qt.Commentf("%s: refused: %s", name, failed))

	}
	return all
}
