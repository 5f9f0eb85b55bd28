package tests

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

const flipKeys = 200

// Numbered values, kill -9, a restart, and all are there. Then one byte of the
// pool is changed with dd: `pool check` says where, and the server does as the
// help of `serve kv` says.
func TestFlippedByte(t *testing.T) {
	l := newLab(t, netlab.Config{})
	pools := map[string]string{
		"log":  killedPool(t, l, "kv", true), // all values are in the log
		"tree": killedPool(t, l, "kv", false),
		"http": killedPool(t, l, "http", true),
	}
	for _, path := range pools {
		_, stderr, err := ctl(l, "pool", "check", path)
		qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", stderr))
	}
	log := openPool(t, pools["log"])
	entries := int64(binary.LittleEndian.Uint64(log.Mem()[40:])) // superblock: logOffset
	tree := openPool(t, pools["tree"])
	root, ok := tree.Root(kv.RootName)
	qt.Assert(t, qt.IsTrue(ok))
	value := int64(bytes.Index(tree.Mem(), flipValue(100)))
	qt.Assert(t, qt.IsTrue(value > 0), qt.Commentf("%v", value))
	frame := func(i uint32) int64 { return int64(i) * int64(log.FrameSize()) }

	for _, c := range []struct {
		name, pool string
		at         []int64
		check      string // what `pool check` says
		refused    string // what the server says, if it does not start
		lost       int    // else: keys that are answered with 500
	}{
		{"value of a record", "log", []int64{payloadOf(t, log, 100) + 500}, "record 100,", `record 100, .* checksum mismatch \(key "99"\)`, 0},
		{"head of a record", "log", []int64{payloadOf(t, log, 100) + 1}, "record 100,", "record 100, .* checksum mismatch", 0},
		{"log entry", "log", []int64{entries + 64*100 + 20}, "entry 100, of record 101,", "entry 100, of record 101,.*", 0},
		{"last log entry", "log", []int64{entries + 64*(flipKeys-1) + 20}, "of record 200,", ".*of record 200,.*", 0},
		{"value in the tree", "tree", []int64{value + 500}, `key "100": `, "", 1},
		{"node of the tree", "tree", []int64{frame(root.Frame) + 100}, fmt.Sprintf("node in frame %d: checksum mismatch", root.Frame), fmt.Sprintf(`root "kv" \(tree\): node in frame %d: checksum mismatch`, root.Frame), 0},
		{"superblock", "log", []int64{20}, "superblock, copy 1: ", "", 0},
		{"second superblock", "log", []int64{frame(1) + 20}, "superblock, copy 2: ", "", 0},
		{"both superblocks", "log", []int64{20, frame(1) + 20}, "the superblock's checksum is wrong", "the superblock's checksum is wrong", 0},
		{"log head", "log", []int64{frame(2) + 20}, "log head, copy 1: ", "", 0},
		{"both log heads", "log", []int64{frame(2) + 20, frame(3) + 20}, "both copies of the log head are invalid", "both copies of the log head are invalid", 0},
		{"roots", "tree", []int64{frame(4) + 70}, "table of roots, copy 1: ", "", 0},
		{"both roots", "tree", []int64{frame(4) + 70, frame(8) + 70}, "both copies of the roots are invalid", "both copies of the roots are invalid", 0},
		{"record of http", "http", []int64{payloadOf(t, openPool(t, pools["http"]), 100) + 500}, "record 100,", "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			kind := "kv"
			if c.pool == "http" {
				kind = "http"
			}
			path := poolFile(t)
			b, err := os.ReadFile(pools[c.pool])
			qt.Assert(t, qt.IsNil(err))
			qt.Assert(t, qt.IsNil(os.WriteFile(path, b, 0o600)))
			for _, at := range c.at {
				flipByte(t, path, at)
			}
			checked := func() {
				t.Helper()
				stdout, stderr, err := ctl(l, "pool", "check", path)
				qt.Check(t, qt.IsNotNil(err))
				qt.Check(t, qt.StringContains(stdout+stderr, c.check))
			}
			checked()
			s, err := start(t, l, kind, path)
			qt.Assert(t, qt.IsNil(err))
			err = s.wait()
			if c.refused != "" {
				qt.Assert(t, qt.ErrorMatches(err, "(?s)the server ended before it was ready: exit status 1; it said: pastectl: serve kv: .*"+c.refused+".*"))
				checked() // and nothing was changed
				return
			}
			qt.Assert(t, qt.IsNil(err))
			lost, client := 0, newClient(t, l)
			for i := range flipKeys {
				if kind == "kv" && getNumbered(client, s.url, i) != nil {
					lost++
				}
			}
			client.CloseIdleConnections()
			s.stop()
			if kind == "http" {
				_, stderr, err := ctl(l, "pool", "log", path, "--verify")
				qt.Check(t, qt.IsNotNil(err))
				_, err = fmt.Sscanf(stderr[strings.LastIndex(stderr, ": ")+2:], "%d of 200 records", &lost)
				qt.Check(t, qt.IsNil(err), qt.Commentf("%s", stderr))
			}
			qt.Check(t, qt.Equals(lost, c.lost))
			if c.lost > 0 {
				checked()
				return
			}
			_, stderr, err := ctl(l, "pool", "check", path) // mended
			qt.Check(t, qt.IsNil(err), qt.Commentf("%s", stderr))
		})
	}
}

// killedPool makes a pool with numbered values in it, whose server was killed,
// and which all come back afterwards. It is killed again, or else stopped, which
// moves a kv's values from the log to the tree.
func killedPool(t *testing.T, l *netlab.Lab, kind string, again bool) string {
	path := poolFile(t) + kind + fmt.Sprint(again)
	t.Cleanup(func() { removeFile(t, path) })
	s := serveKind(t, l, kind, path, "--pool-size", "16MiB")
	c := newClient(t, l)
	for i := range flipKeys {
		req, err := http.NewRequest("PUT", fmt.Sprintf("%s/k/%d", s.url, i), bytes.NewReader(flipValue(i)))
		qt.Assert(t, qt.IsNil(err))
		resp, err := c.Do(req)
		qt.Assert(t, qt.IsNil(err))
		resp.Body.Close()
		qt.Assert(t, qt.Equals(resp.StatusCode, http.StatusCreated))
	}
	c.CloseIdleConnections()
	s.Kill()
	s = serveKind(t, l, kind, path)
	for i := range flipKeys {
		if kind == "kv" {
			qt.Assert(t, qt.IsNil(getNumbered(c, s.url, i)))
		}
	}
	c.CloseIdleConnections()
	if again {
		s.Kill()
	} else {
		s.stop()
	}
	return path
}

func flipValue(i int) []byte { return numberedBody("k", i, 1000) }

// getNumbered fails unless a key has its value.
func getNumbered(c *http.Client, url string, i int) error {
	resp, err := c.Get(fmt.Sprintf("%s/k/%d", url, i))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !bytes.Equal(b, flipValue(i)) {
		return fmt.Errorf("key %d: %s and %d bytes", i, resp.Status, len(b))
	}
	return nil
}

func openPool(t testing.TB, path string) *pmem.Pool {
	t.Helper()
	p, err := pmem.Open(path, pmem.Options{ReadOnly: true})
	qt.Assert(t, qt.IsNil(err))
	t.Cleanup(func() { qt.Check(t, qt.IsNil(p.Close())) })
	return p
}

// payloadOf is where a record begins in the pool's file.
func payloadOf(t testing.TB, p *pmem.Pool, seq uint64) int64 {
	t.Helper()
	r, err := p.Log().Record(seq)
	qt.Assert(t, qt.IsNil(err))
	return int64(p.Offset(r.Fragments[0].Frame, int(r.Fragments[0].Off)))
}

// flipByte changes one bit of one byte as a user would, with dd.
func flipByte(t testing.TB, path string, at int64) {
	t.Helper()
	b := make([]byte, 1)
	f, err := os.Open(path)
	qt.Assert(t, qt.IsNil(err))
	defer f.Close()
	_, err = f.ReadAt(b, at)
	qt.Assert(t, qt.IsNil(err))
	b[0] ^= 0x10
	dd := newLocal("dd", "of="+path, "bs=1", "count=1", "conv=notrunc", fmt.Sprintf("seek=%d", at))
	dd.Stdin = newReader(b)
	out, err := dd.CombinedOutput()
	qt.Assert(t, qt.IsNil(err), qt.Commentf("%s", out))
}
