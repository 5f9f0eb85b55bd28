package pmem_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/pastenet/paste/pmem"
)

// A payload gets into the log where it lies, and is found again after the pool
// was closed, or its process killed.
func Example() {
	dir, err := os.MkdirTemp("/dev/shm", "pmem-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "x.pool")

	pool, err := pmem.OpenOrCreate(path, pmem.Options{Size: 4 << 20})
	if err != nil {
		log.Fatal(err)
	}
	var frames [1]uint32
	if pool.Alloc(frames[:]) == 0 {
		log.Fatal("the pool is full")
	}
	// As a NIC would, behind some headers.
	const off = 66
	n := copy(pool.Frame(frames[0])[off:], "hello")
	seq, err := pool.Log().Append([]pmem.Fragment{{Frame: frames[0], Off: off, Len: uint16(n)}}, true)
	if err != nil {
		log.Fatal(err)
	}
	pool.Unref(frames[0])                       // the log has a reference of its own
	if err := pool.Log().Commit(); err != nil { // durable, with everything else that was appended
		log.Fatal(err)
	}
	fmt.Println("stored record", seq)
	if err := pool.Close(); err != nil {
		log.Fatal(err)
	}

	if pool, err = pmem.Open(path, pmem.Options{}); err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	for r, err := range pool.Log().Records() {
		if err == nil {
			err = r.Verify()
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("found record %d in frame %d: %s\n", r.Seq, r.Fragments[0].Frame-pool.FirstFrame(), r.Payload(0))
	}
	// Output:
	// stored record 1
	// found record 1 in frame 0: hello
}
