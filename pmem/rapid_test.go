package pmem

import (
	"testing"

	"pgregory.net/rapid"
)

// rapidTB lets qt report to rapid, which shrinks the failing case; rapid.T
// lacks methods that testing.TB has since Go 1.25. qt uses no others than these.
type rapidTB struct {
	testing.TB
	r *rapid.T
}

func (t rapidTB) Helper()           { t.r.Helper() }
func (t rapidTB) Fatal(args ...any) { t.r.Fatal(args...) }
func (t rapidTB) Error(args ...any) { t.r.Error(args...) }

func tb(r *rapid.T) testing.TB { return rapidTB{r: r} }
