package pmem

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// benchPool makes a pool of size bytes whose log refers to live frames, all of
// them with payload if full is set. PMEM_BENCH_GIB makes it larger.
func benchPool(b *testing.B, live int, full bool) string {
	b.Helper()
	size := int64(1 << 30)
	if n, err := strconv.Atoi(os.Getenv("PMEM_BENCH_GIB")); err == nil {
		size = int64(n) << 30
	}
	path := filepath.Join(shm(b), "p.pool")
	p, err := Create(path, Options{Size: size, LogEntries: live})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	n := 64
	if full {
		n = p.FrameSize()
	}
	payload := make([]byte, n)
	for i := range payload {
		payload[i] = byte(i)
	}
	for i := range live {
		if _, err := p.Log().AppendCopy(payload); err != nil {
			b.Fatal(err)
		}
		if i%1024 == 0 || i == live-1 {
			if err := p.Log().Commit(); err != nil {
				b.Fatal(err)
			}
		}
	}
	return path
}

// BenchmarkOpen is the recovery of a pool: per operation, one Open for writing.
func BenchmarkOpen(b *testing.B) {
	for _, live := range []int{1000, 100_000, 400_000} {
		b.Run(fmt.Sprintf("live=%d", live), func(b *testing.B) {
			path := benchPool(b, live, false)
			for b.Loop() {
				p, err := Open(path, Options{})
				if err != nil {
					b.Fatal(err)
				}
				if got := int(p.Frames()-p.FirstFrame()) - p.Free(); got != live {
					b.Fatalf("%d frames in use", got)
				}
				p.Close()
			}
		})
	}
}

// BenchmarkOpenLarge is a pool of 16 GiB with a million live frames. Most of it
// is a hole, so that it needs 3 GiB of memory; it is opened read-only, as a
// writer would fill the hole. It runs when PMEM_BENCH_GIB is 3 or more.
func BenchmarkOpenLarge(b *testing.B) {
	if n, err := strconv.Atoi(os.Getenv("PMEM_BENCH_GIB")); err != nil || n < 3 {
		b.Skip("needs 3 GiB of memory: set PMEM_BENCH_GIB=3")
	}
	const live = 1_000_000
	path := benchPool(b, live, false)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(16 << 30); err != nil {
		b.Fatal(err)
	}
	m, err := mapFile(f, superReach, unix.PROT_READ|unix.PROT_WRITE, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Munmap(m)
	s, err := readSuper(m)
	if err != nil {
		b.Fatal(err)
	}
	g, err := layout(16<<30, int(s.frameSize), s.logLen)
	if err != nil {
		b.Fatal(err)
	}
	if err := growSuper(m, &cpuDomain{m}, s, g); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		reports := 0
		p, err := Open(path, Options{ReadOnly: true, Progress: func(done, total uint64) { reports++ }})
		if err != nil {
			b.Fatal(err)
		}
		if got := int(p.Frames()-p.FirstFrame()) - p.Free(); got != live || reports < 10 {
			b.Fatalf("%d frames in use, %d reports", got, reports)
		}
		p.Close()
	}
}

// BenchmarkCheck verifies every payload of a pool; bytes are those of payload.
func BenchmarkCheck(b *testing.B) {
	const live = 200_000
	path := benchPool(b, live, true)
	b.SetBytes(live * 2048)
	for b.Loop() {
		p, err := Open(path, Options{ReadOnly: true})
		if err != nil {
			b.Fatal(err)
		}
		res, err := p.Check(b.Context(), nil, func(err error) { b.Error(err) })
		if err != nil || res.Records != live {
			b.Fatal(res, err)
		}
		p.Close()
	}
}

// BenchmarkFileCommit is a batch of 1 KiB records in a pool on a disk, one sync each.
func BenchmarkFileCommit(b *testing.B) {
	for _, batch := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			p, err := Create(filepath.Join(onDisk(b), "p.pool"), Options{Size: 64 << 20})
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			payload := make([]byte, 1024)
			for b.Loop() {
				for range batch {
					if _, err := p.Log().AppendCopy(payload); err != nil {
						b.Fatal(err)
					}
				}
				if err := p.Log().Commit(); err != nil {
					b.Fatal(err)
				}
				if p.Log().Len() > 8192 {
					if err := p.Log().Truncate(p.Log().Committed() - 1); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
