package pmem

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/go-quicktest/qt"
)

func TestHeaders(t *testing.T) {
	p := memory(t, Options{})
	l := p.Log()
	text := strings.Repeat("0123456789", 10)
	var seqs []uint64
	for n := range MaxHeader + 1 {
		for _, payload := range []string{"", "x", text} {
			seq, err := l.AppendCopyHeader([]byte(text[:n]), []byte(payload))
			qt.Assert(t, qt.IsNil(err))
			seqs = append(seqs, seq)
		}
	}
	_, err := l.AppendCopyHeader([]byte(text[:MaxHeader+1]), nil)
	qt.Assert(t, qt.ErrorIs(err, ErrSize))
	qt.Assert(t, qt.IsNil(l.Commit()))
	q := reopened(t, p)
	qt.Assert(t, qt.Equals(q.Log().Len(), len(seqs)))
	for i, seq := range seqs {
		r, err := q.Log().Record(seq)
		qt.Assert(t, qt.IsNil(err))
		qt.Assert(t, qt.Equals(string(r.Header), text[:i/3]))
		qt.Assert(t, qt.Equals(string(payloadOf(t, r)), []string{"", "x", text}[i%3]))
		qt.Assert(t, qt.Equals(r.Epoch, 2))
	}
}

// reopened opens the memory of p a second time, as it would be after kill -9.
func reopened(t testing.TB, p *Pool) *Pool {
	t.Helper()
	q, err := OpenMemory(append([]byte(nil), p.Mem()...), nil, Options{})
	qt.Assert(t, qt.IsNil(err))
	return q
}

// A follower sees every record in order while writers append and truncate, and
// the payload stays as long as it looks at it.
func TestFollow(t *testing.T) {
	p := memory(t, Options{})
	l := p.Log()
	const n = 2000
	var wg sync.WaitGroup
	var seen uint64 // records below were seen
	wg.Add(1)
	go func() {
		defer wg.Done()
		for r, err := range l.Follow(t.Context(), 0) {
			if err != nil {
				t.Error(err)
				return
			}
			if r.Seq != seen+1 || r.Verify() != nil || string(r.Header) != fmt.Sprint(len(payloadOf(t, r))) {
				t.Errorf("after record %d: %d, %v", seen, r.Seq, r.Verify())
				return
			}
			seen = r.Seq
			// The record goes, and its frames are still ours.
			if err := l.Truncate(seen); err != nil {
				t.Error(err)
			}
			if r.Verify() != nil {
				t.Errorf("record %d: %v", r.Seq, r.Verify())
			}
			if seen == n {
				return
			}
		}
	}()
	var mu sync.Mutex
	for range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range n / 2 {
				mu.Lock()
				b := killPayload(l.Next())
				mu.Unlock()
				for {
					_, err := l.AppendCopyHeader([]byte(fmt.Sprint(len(b))), b)
					if err == nil {
						break
					}
				}
				if err := l.Commit(); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	qt.Assert(t, qt.Equals(seen, n))
	qt.Assert(t, qt.Equals(p.Free(), int(p.Frames()-p.FirstFrame())))
	qt.Assert(t, qt.Equals(p.Misuses(), 0))
}

func TestFollowEnds(t *testing.T) {
	p := memory(t, Options{})
	l := p.Log()
	for range 3 {
		l.AppendCopy([]byte("x"))
	}
	qt.Assert(t, qt.IsNil(l.Commit()))
	qt.Assert(t, qt.IsNil(l.Truncate(2)))
	last := func(ctx context.Context, from uint64) (n int, err error) {
		for _, err = range l.Follow(ctx, from) {
			if err == nil {
				n++
			}
		}
		return n, err
	}
	_, err := last(t.Context(), 1)
	qt.Assert(t, qt.ErrorIs(err, ErrNoRecord))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n, err := last(ctx, 0)
	qt.Assert(t, qt.ErrorIs(err, context.Canceled))
	qt.Assert(t, qt.Equals(n, 1))
	done := make(chan error)
	go func() {
		_, err := last(t.Context(), 4)
		done <- err
	}()
	p.Close()
	qt.Assert(t, qt.ErrorIs(<-done, ErrClosed))
}
