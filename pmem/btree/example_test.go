package btree_test

import (
	"fmt"
	"log"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/btree"
)

// Small values lie in the tree, others stay in the frames where they are.
func Example() {
	pool, err := pmem.NewMemory("example", pmem.Options{Size: 4 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	tree, err := btree.Create(pool, "fruit", btree.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer tree.Close()

	var frame [1]uint32
	if pool.Alloc(frame[:]) == 0 {
		log.Fatal("the pool is full")
	}
	n := copy(pool.Frame(frame[0]), "a long story about a pear")
	pool.Flush(pool.Offset(frame[0], 0), uint64(n))
	pear := btree.Value{Frags: []pmem.Fragment{{Frame: frame[0], Len: uint16(n)}}, Len: uint32(n)}
	pear.Sum = btree.SumOf(pool, pear.Frags)
	for key, v := range map[string]*btree.Value{"pear": &pear, "apple": {Inline: []byte("red")}} {
		if _, err := tree.Put([]byte(key), v); err != nil {
			log.Fatal(err)
		}
	}
	pool.Unref(frame[0])                  // the tree has a reference of its own
	if err := tree.Commit(); err != nil { // durable, both of them
		log.Fatal(err)
	}

	snapshot := tree.Snapshot() // for any number of readers, while the tree changes
	defer snapshot.Close()
	err = snapshot.Ascend([]byte("a"), func(e btree.Entry) bool {
		var v btree.Value
		e.Value(&v)
		fmt.Printf("%s: %s\n", e.Key(), v.AppendTo(pool, nil))
		return true
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// apple: red
	// pear: a long story about a pear
}
