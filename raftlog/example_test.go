package raftlog_test

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/raftlog"
)

func Example() {
	pool, err := pmem.NewMemory("example", pmem.Options{Size: 1 << 20}) // or pmem.OpenOrCreate
	if err != nil {
		panic(err)
	}
	defer pool.Close()
	store, err := raftlog.Open(pool)
	if err != nil {
		panic(err)
	}
	defer store.Close()
	// raft.NewRaft(config, fsm, store, store, snapshots, transport) does this:
	err = store.StoreLogs([]*raft.Log{
		{Index: 1, Term: 1, Data: []byte("majority")},
		{Index: 2, Term: 1, Data: []byte("never acknowledged")},
	})
	if err != nil {
		panic(err)
	}
	// A new leader replaces what did not reach a majority.
	if err := store.DeleteRange(2, 2); err != nil {
		panic(err)
	}
	if err := store.StoreLog(&raft.Log{Index: 2, Term: 2, Data: []byte("replaced")}); err != nil {
		panic(err)
	}
	var l raft.Log
	if err := store.GetLog(2, &l); err != nil {
		panic(err)
	}
	fmt.Printf("%d %s\n", l.Term, l.Data)
	// Output: 2 replaced
}
