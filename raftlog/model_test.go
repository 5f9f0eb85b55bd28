package raftlog_test

import (
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/raftlog"
)

// Random use, closed and opened at any time, is the same as of raft's store in
// memory.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mem := make([]byte, 4<<20)
		p, err := pmem.FormatMemory(mem, nil, pmem.Options{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := raftlog.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		want := raft.NewInmemStore()
		check := func(err, expected error) {
			if err != nil || expected != nil {
				t.Fatalf("%v; raft's store: %v", err, expected)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"store": func(t *rapid.T) {
				first, last := bounds(want)
				if first == 0 {
					last = rapid.Uint64Range(0, 1000).Draw(t, "gap")
				}
				var logs []*raft.Log
				for range rapid.IntRange(1, 5).Draw(t, "n") {
					last++
					logs = append(logs, &raft.Log{
						Index: last, Term: rapid.Uint64().Draw(t, "term"), Type: raft.LogType(rapid.Byte().Draw(t, "type")),
						Data:       rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "data"),
						Extensions: rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "extensions"),
					})
				}
				check(s.StoreLogs(logs), want.StoreLogs(logs))
			},
			"delete": func(t *rapid.T) {
				first, last := bounds(want)
				if first == 0 {
					t.Skip("empty")
				}
				at := rapid.Uint64Range(first, last).Draw(t, "at")
				if rapid.Bool().Draw(t, "end") {
					check(s.DeleteRange(at, last), want.DeleteRange(at, last))
				} else {
					check(s.DeleteRange(first, at), want.DeleteRange(first, at))
				}
			},
			"reopen": func(t *rapid.T) {
				if p, err = pmem.OpenMemory(mem, nil, pmem.Options{}); err != nil {
					t.Fatal(err)
				}
				if s, err = raftlog.Open(p); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				first, last := bounds(want)
				if f, l := bounds(s); f != first || l != last {
					t.Fatalf("%d to %d, want %d to %d", f, l, first, last)
				}
				for i := first; i <= last && i > 0; i++ {
					var a, b raft.Log
					check(s.GetLog(i, &a), want.GetLog(i, &b))
					if !same(&a, &b) {
						t.Fatalf("entry %d: %+v, want %+v", i, a, b)
					}
				}
			},
		})
	})
}

func bounds(s raft.LogStore) (first, last uint64) {
	first, _ = s.FirstIndex()
	last, _ = s.LastIndex()
	return first, last
}
