package pmem

import (
	"context"
	"fmt"
)

// CheckResult is what Check went through.
type CheckResult struct {
	Records    uint64   // of the log
	Bytes      uint64   // of their payload
	Structures int      // behind roots, values and single frames included
	Frames     uint32   // data frames
	Used       uint32   // of them referred to by something
	Notes      []string // worth knowing, and no damage
	Problems   int      // reported
}

// Check verifies everything in the pool: both copies of the superblock, of the
// log head and of the roots, every log entry and its payload, and every
// structure with a registered kind. Each problem is given to report, in a
// sentence that says where it is; Check itself fails only when ctx ends or the
// pool cannot be read. progress may be nil; it is called with the bytes of
// payload verified, of all.
//
// The pool should be open read-only, which keeps writers out. A Live pool is not
// checked, but ErrLocked: what a writer changes underneath looks like damage.
func (p *Pool) Check(ctx context.Context, progress func(done, total uint64), report func(error)) (CheckResult, error) {
	if p.Live() {
		return CheckResult{}, fmt.Errorf("%w: %s has %s open, and what it changes meanwhile would look like damage; stop that first, or check a copy", ErrLocked, p.Writer(), p.Path())
	}
	c := checker{p: p, ctx: ctx, progress: progress}
	c.report = func(err error) error {
		c.res.Problems++
		report(err)
		return ctx.Err()
	}
	err := p.Guard(c.run)
	c.res.Frames = p.g.frames - p.g.first
	c.res.Used = c.res.Frames - uint32(p.Free())
	return c.res, err
}

type checker struct {
	p        *Pool
	ctx      context.Context
	progress func(done, total uint64)
	report   func(error) error
	res      CheckResult
}

func (c *checker) run() error {
	for _, part := range []func() error{c.supers, c.heads, c.rootCopies, c.opened, c.records, c.structures} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// copies judges something that is stored twice.
func (c *checker) copies(what string, first, second error, same bool) error {
	for i, err := range []error{first, second} {
		if err == nil {
			continue
		}
		if err := c.report(fmt.Errorf("%s, copy %d: %w; an opening for writing makes it anew from the other copy if that is good", what, i+1, err)); err != nil {
			return err
		}
	}
	if first == nil && second == nil && !same {
		c.res.Notes = append(c.res.Notes, fmt.Sprintf("the two copies of the %s differ, as after a crash in the middle of a change; the newer one counts", what))
	}
	return nil
}

func (c *checker) supers() error {
	a, err1 := decodeSuper(c.p.mem)
	b, err2 := decodeSuper(c.p.mem[c.p.g.frameSize:])
	return c.copies("superblock", err1, err2, a == b)
}

func (c *checker) heads() error {
	a, ok1 := decodeHead(c.p.mem[headOffset(&c.p.g, 0):], c.p.seed)
	b, ok2 := decodeHead(c.p.mem[headOffset(&c.p.g, 1):], c.p.seed)
	verdict := func(ok bool) error {
		if ok {
			return nil
		}
		return fmt.Errorf("%w: its checksum is wrong", ErrDamaged)
	}
	return c.copies("log head", verdict(ok1), verdict(ok2), a == b)
}

func (c *checker) rootCopies() error {
	a, _, err1 := decodeRoots(c.p.mem[rootsOffset(&c.p.g, 0):], c.p.seed)
	b, _, err2 := decodeRoots(c.p.mem[rootsOffset(&c.p.g, 1):], c.p.seed)
	return c.copies("table of roots", err1, err2, a == b)
}

// opened reports what Open found, which ends with frames that cannot exist.
func (c *checker) opened() error {
	for _, err := range c.p.Problems() {
		if err := c.report(err); err != nil {
			return err
		}
	}
	if r := c.p.log.Recovery(); r.Discarded > 0 && r.Damage == nil {
		c.res.Notes = append(c.res.Notes, fmt.Sprintf("%d log entries of an interrupted commit are left out: %s", r.Discarded, r.Stopped))
	}
	return nil
}

func (c *checker) records() error {
	total := c.p.log.Recovery().Bytes
	for r, err := range c.p.log.Records() {
		if err == nil {
			c.res.Records++
			c.res.Bytes += uint64(r.Length)
			err = r.Verify()
		}
		if err != nil {
			if err := c.report(fmt.Errorf("log: %w", err)); err != nil {
				return err
			}
		}
		if c.res.Records%1024 == 0 {
			if err := c.ctx.Err(); err != nil {
				return err
			}
			c.show(total)
		}
	}
	c.show(total)
	return nil
}

func (c *checker) show(total uint64) {
	if c.progress != nil {
		c.progress(min(c.res.Bytes, total), total)
	}
}

func (c *checker) structures() error {
	for name, r := range c.p.Roots() {
		k, ok := KindOf(r.Kind)
		if !ok || c.p.broken[name] != nil {
			continue // reported already
		}
		c.res.Structures++
		if k.Check == nil {
			continue
		}
		if err := c.p.Guard(func() error { return k.Check(c.p, name, r, c.report) }); err != nil {
			if c.ctx.Err() != nil {
				return err
			}
			if err := c.report(fmt.Errorf("root %q (%s): %w", name, k.Name, err)); err != nil {
				return err
			}
		}
	}
	return nil
}
