// Package seed gives tests their random numbers: the same in every run, unless
// the environment variable PASTE_SEED has another number to begin with, as
// `scripts/test explore` sets it.
package seed

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Variable names the environment variable with the first seed; 0 without it.
const Variable = "PASTE_SEED"

func first() uint64 {
	text, ok := os.LookupEnv(Variable)
	if !ok || text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%s=%s is not a number from 0 to 2^64-1", Variable, text))
	}
	return n
}

// From yields n seeds. A test that fails names the one that it fails with.
func From(n uint64) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		begin := first()
		for i := range n {
			if !yield(begin + i) {
				return
			}
		}
	}
}

// New returns a generator of random numbers, and logs what it begins with.
func New(t testing.TB) *rand.Rand {
	t.Helper()
	n := first()
	t.Logf("%s=%d", Variable, n)
	return rand.New(rand.NewPCG(n, 0))
}
