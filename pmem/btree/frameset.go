package btree

// frameSet is a set of frames of one pool, a bit for each.
type frameSet []uint64

func newFrameSet(frames uint32) frameSet { return make(frameSet, (frames+63)/64) }

func (s frameSet) has(f uint32) bool { return int(f/64) < len(s) && s[f/64]&(1<<(f%64)) != 0 }
func (s frameSet) add(f uint32)      { s[f/64] |= 1 << (f % 64) }
func (s frameSet) remove(f uint32)   { s[f/64] &^= 1 << (f % 64) }
