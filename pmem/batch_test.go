package pmem

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"
)

// batchPayload makes the payload of record n of a goroutine: of every length
// around those at which something is done at once instead of at the commit.
func batchPayload(g, n int) []byte {
	rng := rand.New(rand.NewPCG(uint64(g), uint64(n)))
	limit := []int{64, 1024, copyLater, placeLater}[rng.IntN(4)]
	return randomPayload(rng, max(0, limit+rng.IntN(5)-2)*rng.IntN(4)/3)
}

// Records that several goroutines append, in every way and with commits in
// between, are whole, each in the order of its goroutine.
func TestAppendAllWays(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		p := memory(t, Options{Size: 64 << 20})
		free := p.Free()
		const each = 300
		var all sync.WaitGroup
		for g := range 3 {
			all.Add(1)
			go func() {
				defer all.Done()
				for n := range each {
					qt.Check(t, qt.IsNil(appendOne(p, g, n)))
					if n%100 == 99-g {
						qt.Check(t, qt.IsNil(p.Log().Commit()))
					}
				}
			}()
		}
		all.Wait()
		qt.Assert(t, qt.IsNil(p.Log().Commit()))

		var next [3]int
		for r, err := range p.Log().Records() {
			qt.Assert(t, qt.IsNil(err))
			g := int(r.Header[0])
			if want := batchPayload(g, next[g]); !bytes.Equal(payloadOf(t, r), want) {
				t.Fatalf("record %d, number %d of goroutine %d, is not its %d bytes", r.Seq, next[g], g, len(want))
			}
			qt.Assert(t, qt.IsNil(r.Verify()))
			next[g]++
		}
		qt.Assert(t, qt.Equals(next, [3]int{each, each, each}))
		qt.Assert(t, qt.IsNil(p.Log().Truncate(p.Log().Next()-1)))
		qt.Assert(t, qt.Equals(p.Free(), free))
	})
}

// appendOne appends a record by copy or in place, by turns.
func appendOne(p *Pool, g, n int) error {
	payload, header := batchPayload(g, n), []byte{byte(g)}
	if n%2 == 0 {
		_, err := p.Log().AppendCopyHeader(header, payload)
		clear(payload) // it is the caller's again
		return err
	}
	frags := fragmentsOf(p, len(payload))
	for i, f := range frags {
		copy(p.Frame(f.Frame), payload[i*p.FrameSize():][:f.Len])
	}
	_, err := p.Log().AppendHeader(header, frags, n%4 == 1)
	for _, f := range frags {
		p.Unref(f.Frame)
	}
	return err
}

// An append allocates nothing, once a batch as large has been committed.
func TestAppendAllocates(t *testing.T) {
	p := memory(t, Options{})
	l := p.Log()
	frags := fragmentsOf(p, 5000)
	payload := make([]byte, 10_000)
	batch := func() error {
		for n := 0; n < 9000; n += 3000 {
			if _, err := l.AppendCopyHeader([]byte("header"), payload[:n]); err != nil {
				return err
			}
			if _, err := l.Append(frags, true); err != nil {
				return err
			}
		}
		return nil
	}
	for range 2 { // batches take turns
		qt.Assert(t, qt.IsNil(batch()))
		qt.Assert(t, qt.IsNil(l.Commit()))
	}
	var err error
	n := testing.AllocsPerRun(1, func() {
		if e := batch(); e != nil {
			err = fmt.Errorf("append: %w", e)
		}
		l.staged = l.staged.reset()
	})
	qt.Assert(t, qt.IsNil(err))
	qt.Assert(t, qt.Equals(n, 0))
}
