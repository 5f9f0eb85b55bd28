package pmem

// runReach bounds runs: none goes across a multiple of so many bytes of the pool.
// So whether a fragment continues another one is a matter of these two, the
// length of a run fits in 20 bits, and to read a part of a long record no more has to
// be verified than that.
const runReach = 512 << 10

// runsSince is the format version from which on a log entry may be a run.
const runsSince = 4

// run is what one log entry refers to: bytes of one frame, or of several
// neighbouring ones, one behind the other.
type run struct {
	frame uint32 // the first one
	off   uint16 // in it
	len   uint32 // bytes
}

// frames is how many frames a run touches; one without bytes has its frame as well.
func (r run) frames(g *geometry) uint32 {
	return max((uint32(r.off)+r.len+g.frameSize-1)/g.frameSize, 1)
}

// sane reports whether a run of several frames may be one.
func (r run) sane(g *geometry) bool {
	n := uint64(r.frames(g))
	last := uint64(r.frame) + n - 1
	fs := uint64(g.frameSize)
	return g.runs && uint32(r.off) < g.frameSize && n > 1 && last < uint64(g.frames) &&
		uint64(r.frame)*fs/runReach == last*fs/runReach
}

// Continues says whether next begins where prev ends, so that the log refers to both by
// one entry with one checksum. It does not look at the length of next.
func (p *Pool) Continues(prev, next Fragment) bool {
	g := &p.g
	return g.runs && next.Off == 0 && prev.Len > 0 && next.Frame == prev.Frame+1 &&
		uint32(prev.Off)+uint32(prev.Len) == g.frameSize && uint64(next.Frame)*uint64(g.frameSize)%runReach != 0
}

// firstRun returns the run that fragments begin with, and how many it consists of.
func (p *Pool) firstRun(frags []Fragment) (r run, n int) {
	r = run{frags[0].Frame, frags[0].Off, uint32(frags[0].Len)}
	for n = 1; n < len(frags) && frags[n].Len > 0 && p.Continues(frags[n-1], frags[n]); n++ {
		r.len += uint32(frags[n].Len)
	}
	return r, n
}

// countRuns returns how many runs fragments are.
func (p *Pool) countRuns(frags []Fragment) (runs int) {
	for len(frags) > 0 {
		_, n := p.firstRun(frags)
		frags = frags[n:]
		runs++
	}
	return runs
}

// neighbours returns how many of the frames at the beginning of a list can be one run.
func (p *Pool) neighbours(frames []uint32) int {
	n := 1
	for n < len(frames) && p.Continues(Fragment{Frame: frames[n-1], Len: uint16(p.g.frameSize)}, Fragment{Frame: frames[n]}) {
		n++
	}
	return n
}

// check is what is known of the checksum of a fragment: it is that of all fragments
// of a run, of which this one is number at.
type check struct {
	sum    uint32
	at, of uint16
}

// fragments appends the fragments of an entry, one for each frame.
func (r *Record) fragments(e *entry, g *geometry) {
	n := e.frames(g)
	off, left := uint32(e.off), e.len
	for i := range n {
		k := min(left, g.frameSize-off)
		r.Fragments = append(r.Fragments, Fragment{Frame: e.frame + i, Off: uint16(off), Len: uint16(k)})
		r.checks = append(r.checks, check{e.sum, uint16(i), uint16(n)})
		off, left = 0, left-k
	}
	r.Length += int64(e.len)
}
