package tests

import (
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/lab"
)

// kill -9 under load, again and again: every record whose number a client has
// seen is in the log, byte for byte.
func TestCrashUnderLoad(t *testing.T) {
	const rounds, clients = 20, 8
	l := newLab(t, lab.Config{})
	pool := poolFile(t)
	var mu sync.Mutex
	acked := map[uint64][32]byte{}
	rng := rand.New(rand.NewSource(1))
	for round := range rounds {
		mode := []string{"zero-copy", "copy"}[round%2]
		s := serve(t, l, pool, "--pool-size", "512MiB", "--persist", mode)
		mu.Lock()
		qt.Assert(t, qt.IsTrue(s.ready.Records >= uint64(len(acked))), qt.Commentf("%d records, %d acknowledged", s.ready.Records, len(acked)))
		before := len(acked)
		mu.Unlock()
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				rng := rand.New(rand.NewSource(int64(round*clients + i)))
				c := newClient(t, l)
				defer c.CloseIdleConnections()
				for {
					data := random(1+rng.Intn(1<<uint(4+rng.Intn(14))), rng.Int63())
					seq, err := post(c, s.url, data)
					if err != nil {
						return // killed
					}
					mu.Lock()
					_, twice := acked[seq]
					acked[seq] = sum(data)
					mu.Unlock()
					if twice {
						t.Errorf("round %d: record %d was acknowledged twice", round, seq)
					}
				}
			})
		}
		// At any moment, but under load.
		waitFor(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(acked) > before+20
		})
		time.Sleep(time.Duration(rng.Intn(100)) * time.Millisecond)
		s.kill()
		wg.Wait()
	}
	log := readLog(t, pool)
	missing := 0
	for seq, sum := range acked {
		if log[seq] != sum {
			if missing++; missing < 5 {
				t.Errorf("record %d was acknowledged, and is missing or different", seq)
			}
		}
	}
	qt.Check(t, qt.Equals(missing, 0))
	t.Logf("%d records acknowledged in %d lives, %d in the log", len(acked), rounds, len(log))
}

// A pool on a disk cannot be received into. It is staged, the user is told,
// and acknowledged records survive a kill as anywhere.
func TestPoolOnDisk(t *testing.T) {
	l := newLab(t, lab.Config{})
	wd, err := os.Getwd()
	qt.Assert(t, qt.IsNil(err))
	dir := ""
	for _, d := range []string{os.TempDir(), "/var/tmp", wd} {
		out, err := newLocal("stat", "-f", "-c", "%T", d).Output()
		qt.Assert(t, qt.IsNil(err))
		if fs := strings.TrimSpace(string(out)); fs != "tmpfs" && fs != "ramfs" && fs != "hugetlbfs" {
			dir = d
			break
		}
	}
	qt.Assert(t, qt.Not(qt.Equals(dir, "")), qt.Commentf("no directory on a disk"))
	path := filepath.Join(dir, "paste-tests-pool-"+itoa(os.Getpid()))
	t.Cleanup(func() { removeFile(t, path) })
	c := newClient(t, l)
	acked := map[uint64][32]byte{}
	for round := range 3 {
		s := serve(t, l, path, "--pool-size", "32MiB")
		c.CloseIdleConnections()
		qt.Check(t, qt.StringContains(s.ready.Port.Pool.Durability, "staged"))
		for i := range 10 {
			data := random(1+i*20_000, int64(round*10+i))
			seq, err := post(c, s.url, data)
			qt.Assert(t, qt.IsNil(err))
			acked[seq] = sum(data)
		}
		s.kill()
		qt.Check(t, qt.DeepEquals(readLog(t, path), acked))
	}
}
