package tests

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
	"github.com/pastenet/paste/internal/seed"
	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
	"github.com/pastenet/paste/pmem/kv"
)

// kill -9 under full load of wrk and curl, again and again: what any of them
// was told is stored is there after each restart, nothing else is but what was
// under way, no frame is lost, and nobody has to clean up.
//
// PASTE_KILL_ROUNDS says how often for each way to serve; 2 by default.
func TestKillUnderLoad(t *testing.T) {
	rounds := 2
	if n, err := strconv.Atoi(os.Getenv("PASTE_KILL_ROUNDS")); err == nil {
		rounds = n
	}
	for _, kind := range []string{"http", "kv"} {
		for _, medium := range []string{"tmpfs", "disk"} {
			for way, args := range serveWays {
				if medium == "disk" && (way == "auto" || way == "copied") {
					continue // what differs there is not how payload comes in
				}
				t.Run(fmt.Sprintf("%s/%s/%s", kind, medium, way), func(t *testing.T) {
					k := killing{t: t, l: newLab(t, netlab.Config{}), kind: kind, pool: poolFile(t)}
					if medium == "disk" {
						k.pool = diskFile(t)
					}
					// A kv shall checkpoint several times in a second, a log not be full.
					k.args = []string{"--pool-size", map[string]string{"kv": "32MiB", "http": "96MiB"}[kind]}
					k.args = append(k.args, args...)
					k.run(rounds)
				})
			}
		}
	}
}

// diskFile is the path of a pool that does not exist yet, on a disk.
func diskFile(t testing.TB) string {
	t.Helper()
	wd, err := os.Getwd()
	qt.Assert(t, qt.IsNil(err))
	for _, d := range []string{os.TempDir(), "/var/tmp", wd} {
		out, err := newLocal("stat", "-f", "-c", "%T", d).Output()
		qt.Assert(t, qt.IsNil(err))
		if fs := strings.TrimSpace(string(out)); fs != "tmpfs" && fs != "ramfs" && fs != "hugetlbfs" {
			dir, err := os.MkdirTemp(d, tempName())
			qt.Assert(t, qt.IsNil(err))
			t.Cleanup(func() { qt.Check(t, qt.IsNil(os.RemoveAll(dir))) })
			return filepath.Join(dir, "pool")
		}
	}
	t.Fatal("no directory on a disk")
	return ""
}

// killing is one server that is killed and started over and over.
type killing struct {
	t    *testing.T
	l    *netlab.Lab
	kind string
	pool string
	args []string
	rng  *rand.Rand // of the moments

	base    int // of this round's numbers
	records map[uint64]numbered
	held    map[string]*[ownKeys]int // number of the request that a key's state is of
	bound   map[string]int           // no request of a writer with a greater number has reached a server
	inUse   uint32                   // frames that something in the pool reaches
	ports   int                      // frames that a server has besides, without load; -1: not known yet

	acks, deletes int
}

// numbered is which request a record is of.
type numbered struct {
	writer string
	n      int
}

func (k *killing) run(rounds int) {
	k.rng = seed.New(k.t)
	k.held, k.bound, k.records, k.ports = map[string]*[ownKeys]int{}, map[string]int{}, map[uint64]numbered{}, -1
	for round := range rounds {
		k.base = round * perRound
		s := serveKind(k.t, k.l, k.kind, k.pool, k.args...)
		s = k.restarted(s)
		w := startWriters(k.t, k.l, k.kind, s.url, k.base)
		waitFor(k.t, func() bool { return w.noted() || !s.Running() })
		time.Sleep(time.Duration(k.rng.Int64N(int64(150 * time.Millisecond)))) // the moment of the kill
		qt.Assert(k.t, qt.IsTrue(s.Running()), qt.Commentf("server ended: %s", s.Said()))
		s.Kill()
		k.note(w.end())
		k.killed()
		if round%3 == 1 {
			// And while it recovers.
			s, err := start(k.t, k.l, k.kind, k.pool, k.args...)
			qt.Assert(k.t, qt.IsNil(err))
			time.Sleep(time.Duration(k.rng.Int64N(int64(300 * time.Millisecond))))
			s.Kill()
			k.killed()
		}
		if k.t.Failed() {
			k.t.Fatalf("in round %d", round)
		}
	}
	s := serveKind(k.t, k.l, k.kind, k.pool, k.args...)
	k.restarted(s).stop()
	k.killed()
	k.t.Logf("%d kills, %d acknowledged requests, %d of them deletes", rounds, k.acks, k.deletes)
}

// note takes down what was acknowledged in a round.
func (k *killing) note(all map[string][]note) {
	for writer := range k.bound {
		k.bound[writer] = k.base + wrkDepth
	}
	for writer, notes := range all {
		k.bound[writer] = k.base + wrkDepth
		for _, n := range notes {
			k.acks++
			k.bound[writer] = n.n + wrkDepth
			if k.kind == "http" {
				twice, ok := k.records[n.answer]
				qt.Check(k.t, qt.IsFalse(ok), qt.Commentf("record %d was acknowledged to %v and %s", n.answer, twice, writer))
				k.records[n.answer] = numbered{writer, n.n}
				continue
			}
			if n.size == 0 {
				k.deletes++
			}
			if k.held[writer] == nil {
				k.held[writer] = new([ownKeys]int)
			}
			k.held[writer][n.n%ownKeys] = n.n
		}
	}
}

// killed looks at the pool that a server left.
func (k *killing) killed() {
	k.t.Helper()
	out, errs, err := ctl(k.l, "pool", "check", k.pool, "--json")
	qt.Assert(k.t, qt.IsNil(err), qt.Commentf("%s%s", out, errs))
	var check struct {
		Used uint32 `json:"used_frames"`
	}
	qt.Assert(k.t, qt.IsNil(json.Unmarshal([]byte(out), &check)))

	p, err := pmem.Open(k.pool, pmem.Options{ReadOnly: true})
	qt.Assert(k.t, qt.IsNil(err))
	defer p.Close()
	frames := map[uint32]bool{}
	found := map[uint64]bool{}
	sent := map[numbered]uint64{}
	for r, err := range p.Log().Records() {
		qt.Assert(k.t, qt.IsNil(err))
		for _, f := range r.Fragments {
			frames[f.Frame] = true
		}
		if k.kind == "http" {
			k.record(r, sent)
			found[r.Seq] = true
		}
	}
	if root, ok := p.Root(kv.RootName); ok {
		qt.Assert(k.t, qt.IsNil(btree.Walk(p, root, func(f uint32) error { frames[f] = true; return nil })))
	}
	k.inUse = uint32(len(frames))
	qt.Check(k.t, qt.Equals(check.Used, k.inUse))

	missing := 0
	for seq, of := range k.records {
		if !found[seq] {
			if missing++; missing < 5 {
				k.t.Errorf("record %d of %s number %d was acknowledged, and is missing", seq, of.writer, of.n)
			}
		}
	}
	qt.Assert(k.t, qt.Equals(missing, 0))
}

// record compares one record with what was noted of it.
func (k *killing) record(r pmem.Record, sent map[numbered]uint64) {
	k.t.Helper()
	var b bytes.Buffer
	_, err := r.WriteTo(&b)
	qt.Assert(k.t, qt.IsNil(err))
	var is numbered
	is.writer, is.n, err = parseNumbered(b.Bytes())
	qt.Assert(k.t, qt.IsNil(err), qt.Commentf("record %d", r.Seq))
	if was, ok := k.records[r.Seq]; ok {
		qt.Assert(k.t, qt.Equals(is, was), qt.Commentf("record %d", r.Seq))
	}
	other, twice := sent[is]
	qt.Assert(k.t, qt.IsFalse(twice), qt.Commentf("records %d and %d are of one request", other, r.Seq))
	sent[is] = r.Seq
}

// restarted looks at what a new server has, and returns the one to go on with.
func (k *killing) restarted(s *server) *server {
	k.t.Helper()
	if k.kind == "kv" {
		parallel(k.t, len(k.held), k.readBack(s))
		return s
	}
	// What is neither free nor in use is the port's, and always as much.
	pool := s.ready.Port.Pool
	out, errs, err := ctl(k.l, "pool", "info", k.pool, "--json")
	qt.Assert(k.t, qt.IsNil(err), qt.Commentf("%s", errs))
	var info struct {
		Data    int    `json:"data_frames"`
		Records uint64 `json:"records"`
		First   uint64 `json:"first_seq"`
	}
	qt.Assert(k.t, qt.IsNil(json.Unmarshal([]byte(out), &info)))
	qt.Check(k.t, qt.Equals(s.ready.Records, info.Records))
	ports := info.Data - pool.Free - int(k.inUse)
	if k.ports >= 0 {
		qt.Check(k.t, qt.Equals(ports, k.ports), qt.Commentf("frames that nobody owns"))
	}
	k.ports = ports
	for seq, of := range k.records { // one, as a user reads it
		writer, n, err := parseNumbered(record(k.t, k.pool, seq))
		qt.Assert(k.t, qt.IsNil(err))
		qt.Check(k.t, qt.Equals(numbered{writer, n}, of))
		break
	}
	if int(k.inUse) > info.Data/2 {
		// The log is never truncated: go on in a new pool.
		s.Kill()
		removeFile(k.t, k.pool)
		clear(k.records)
		k.inUse = 0
		return serveKind(k.t, k.l, k.kind, k.pool, k.args...)
	}
	return s
}

// readBack gets every key of a writer.
func (k *killing) readBack(s *server) func(i int) error {
	names := make([]string, 0, len(k.held))
	for name := range k.held {
		names = append(names, name)
	}
	c := newClient(k.t, k.l)
	return func(i int) error {
		writer := names[i]
		for key := range ownKeys {
			if err := k.readKey(c, s.url, writer, key); err != nil {
				return err
			}
		}
		return nil
	}
}

func (k *killing) readKey(c *http.Client, url, writer string, key int) error {
	resp, err := c.Get(fmt.Sprintf("%s/k/%s-%d", url, writer, key))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	// It is the last one that was acknowledged, or one that was under way.
	acked := k.held[writer][key]
	got := -1
	switch resp.StatusCode {
	case http.StatusOK:
		who, n, err := parseNumbered(b)
		if err != nil {
			return fmt.Errorf("key %s-%d: %w", writer, key, err)
		}
		if who == writer && n%ownKeys == key {
			got = n
		}
	case http.StatusNotFound:
		for n := range k.possible(writer, key) {
			if n == 0 || isDelete(n) {
				got = n
			}
		}
	}
	if !k.possible(writer, key)[got] {
		return fmt.Errorf("key %s-%d: %s, number %d; acknowledged was %d (delete: %v), and up to %d may have been sent",
			writer, key, resp.Status, got, acked, isDelete(acked), k.bound[writer])
	}
	k.held[writer][key] = got
	return nil
}

// possible are the numbers of the requests that can have given a key its state.
func (k *killing) possible(writer string, key int) map[int]bool {
	acked := k.held[writer][key]
	is := map[int]bool{acked: true}
	for n := max(acked, k.bound[writer]-wrkDepth) + 1; n <= k.bound[writer]; n++ {
		if n%ownKeys == key {
			is[n] = true
		}
	}
	return is
}
