package btree_test

import (
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/pastenet/paste/pmem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ignoreFull lets a full pool be an ordinary outcome.
func ignoreFull(err error) error {
	if errors.Is(err, pmem.ErrFull) {
		return nil
	}
	return err
}
