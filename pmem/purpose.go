package pmem

import (
	"bytes"
	"fmt"
)

// purposeRoot is the name of the root that says what a pool is for: a value,
// whose text ends at the first zero. Programs that know nothing of purposes
// keep it, as they do any root.
const purposeRoot = ".purpose"

// MaxPurpose is the length of the longest purpose in bytes.
const MaxPurpose = RootValue

// Purpose returns what the pool is for, as Claim has noted it; "" if nobody has.
func (p *Pool) Purpose() string {
	r, ok := p.Root(purposeRoot)
	if !ok || r.Kind != KindValue {
		return ""
	}
	text, _, _ := bytes.Cut(r.Value[:], []byte{0})
	return string(text)
}

// Claim says what the pool is used for, such as "kv", and notes that in it for
// good, durably when it returns. It fails with ErrPurpose if the pool is for
// something else, which must not be mixed with it. Of a pool that was opened
// read-only nothing is noted.
//
// A pool without a purpose may hold something all the same, of programs from
// before there were any: it is the caller's to look.
func (p *Pool) Claim(purpose string) error {
	if purpose == "" || len(purpose) > MaxPurpose || bytes.IndexByte([]byte(purpose), 0) >= 0 {
		return fmt.Errorf("%w: %q; it must have 1 to %d bytes, none of them zero", ErrPurpose, purpose, MaxPurpose)
	}
	switch is := p.Purpose(); {
	case is == purpose:
		return nil
	case is != "":
		return fmt.Errorf("%w: %s is for %q, and not for %q; name another file", ErrPurpose, p.describe(), is, purpose)
	case p.readOnly:
		return nil
	}
	var r Root
	copy(r.Value[:], purpose)
	if err := p.SetRoot(purposeRoot, r); err != nil {
		return fmt.Errorf("note what the pool is for: %w", err)
	}
	return nil
}

// describe names the pool in a sentence.
func (p *Pool) describe() string {
	if path := p.Path(); path != "" {
		return path
	}
	return "the pool"
}
