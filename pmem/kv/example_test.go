package kv_test

import (
	"fmt"
	"log"
	"os"

	"github.com/pastenet/paste/pmem"
	"github.com/pastenet/paste/pmem/kv"
)

func Example() {
	pool, err := pmem.NewMemory("example", pmem.Options{Size: 4 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	store, err := kv.Open(pool, kv.Options{Verify: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	for _, key := range []string{"b/2", "a", "b/1"} {
		if _, err := store.PutBytes([]byte(key), []byte("value of "+key+"\n")); err != nil {
			log.Fatal(err)
		}
	}
	if err := store.Commit(); err != nil { // before anybody is told
		log.Fatal(err)
	}

	var v kv.Value
	found, err := store.Get([]byte("b/1"), &v)
	if err != nil || !found {
		log.Fatal(found, err)
	}
	if _, err := v.WriteTo(pool, os.Stdout); err != nil {
		log.Fatal(err)
	}
	store.Release(&v)
	err = store.Scan([]byte("b/"), nil, 0, func(key []byte) bool {
		fmt.Printf("%s\n", key)
		return true
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// value of b/1
	// b/1
	// b/2
}
