package tests

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/testwait"
)

// usage is what the process has.
type usage struct {
	heap, resident  int64 // bytes
	fds, goroutines int
	free            int // frames
	maps            map[string]int
}

func (s *scale) usage(t *testing.T) usage {
	u := usage{maps: map[string]int{}, goroutines: runtime.NumGoroutine(), free: s.pool.Free()}
	runtime.GC()
	runtime.GC() // what the first one finalized
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.heap = int64(m.HeapInuse)
	statm, err := os.ReadFile("/proc/self/statm") // size resident shared, in pages
	qt.Assert(t, qt.IsNil(err))
	f := strings.Fields(string(statm))
	resident, err1 := strconv.ParseInt(f[1], 10, 64)
	shared, err2 := strconv.ParseInt(f[2], 10, 64) // the pool is among it
	qt.Assert(t, qt.IsNil(errors.Join(err1, err2)))
	u.resident = (resident - shared) * int64(os.Getpagesize())
	fds, err := os.ReadDir("/proc/self/fd")
	qt.Assert(t, qt.IsNil(err))
	u.fds = len(fds)
	for _, fd := range fds {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); to == "anon_inode:bpf-map" {
			qt.Assert(t, qt.IsNil(countEntries(fd.Name(), u.maps)))
		}
	}
	return u
}

// countEntries counts what the map of a descriptor has, if it is one of those that
// know connections.
func countEntries(fd string, entries map[string]int) error {
	info, err := os.ReadFile("/proc/self/fdinfo/" + fd)
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(info), "map_id:")
	text, _, _ := strings.Cut(rest, "\n")
	id, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	if err != nil {
		return fmt.Errorf("map of descriptor %s: %w", fd, err)
	}
	m, err := ebpf.NewMapFromID(ebpf.MapID(id))
	if err != nil {
		return err
	}
	defer m.Close()
	i, err := m.Info()
	if err != nil {
		return err
	}
	switch i.Name {
	case "steer_conns", "ticket_sockets", "ticket_passed":
	default:
		return nil
	}
	entries[i.Name] = 0
	key := make([]byte, m.KeySize())
	for err = m.NextKey(nil, &key); err == nil; err = m.NextKey(key, &key) {
		entries[i.Name]++
	}
	if !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// settle waits until there is no more of anything than there was.
func (s *scale) settle(t *testing.T, what string, was usage) {
	t.Helper()
	var now usage
	defer func() {
		if t.Failed() {
			t.Logf("was %+v, is %+v", was, now)
		}
	}()
	testwait.Until(t, what, func() bool {
		time.Sleep(20 * time.Millisecond)
		if int(s.app.Ring.Stats().Conns) != len(s.peers) {
			return false
		}
		now = s.usage(t)
		for name, n := range now.maps {
			if n > was.maps[name] {
				return false
			}
		}
		return now.fds <= was.fds && now.goroutines <= was.goroutines && now.free >= was.free-spareFrames
	})
}
