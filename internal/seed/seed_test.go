package seed_test

import (
	"slices"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/seed"
)

// Runs are alike, and PASTE_SEED makes them different.
func TestSeed(t *testing.T) {
	t.Setenv(seed.Variable, "")
	qt.Assert(t, qt.DeepEquals(slices.Collect(seed.From(3)), []uint64{0, 1, 2}))
	a, b := seed.New(t).Uint64(), seed.New(t).Uint64()
	qt.Assert(t, qt.Equals(a, b))
	t.Setenv(seed.Variable, "7")
	qt.Assert(t, qt.DeepEquals(slices.Collect(seed.From(2)), []uint64{7, 8}))
	qt.Assert(t, qt.Not(qt.Equals(seed.New(t).Uint64(), a)))
	t.Setenv(seed.Variable, "seven")
	qt.Assert(t, qt.PanicMatches(func() { seed.New(t) }, "PASTE_SEED=seven is not a number.*"))
}
