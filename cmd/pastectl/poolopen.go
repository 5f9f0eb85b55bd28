package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/pastenet/paste/internal/interrupt"
	"github.com/pastenet/paste/pmem"
)

// Opening and making a pool takes as long as its memory takes to be read or
// reserved. Both end at once when ctx is done.

// readPool opens a pool to be looked at.
func readPool(ctx context.Context, path string, progress func(done, total uint64)) (*pmem.Pool, error) {
	p, err := interrupt.Wait(ctx,
		func() (*pmem.Pool, error) {
			return pmem.Open(path, pmem.Options{ReadOnly: true, Progress: progress})
		},
		func(p *pmem.Pool) { p.Close() })
	if errors.Is(err, interrupt.ErrInterrupted) {
		return nil, fmt.Errorf("%w while pool %s was opened", err, path)
	}
	return p, err
}

// makePool makes a pool. Interrupted, it leaves none.
func makePool(ctx context.Context, path string, make func() (*pmem.Pool, error)) (*pmem.Pool, error) {
	p, err := interrupt.Wait(ctx, make, func(p *pmem.Pool) {
		if p.IsNew() && p.Backing() != pmem.BackingDAX {
			_ = os.Remove(path) // it is nobody's yet
		}
		p.Close()
	})
	if errors.Is(err, interrupt.ErrInterrupted) {
		return nil, fmt.Errorf("%w; no pool was made at %s", err, path)
	}
	return p, err
}
