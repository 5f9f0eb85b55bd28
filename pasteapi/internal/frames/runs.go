package frames

import "github.com/pastenet/paste/pmem"

// runBytes is the size of a run: no slot can say more of its length than 16 bits.
const runBytes = 1 << 16

const (
	// runsMost is how many runs a ring has, as long as they are not kept.
	runsMost = 64
	// runsPart is the part of the pool's frames that they take at most: one in so
	// many.
	runsPart = 32
	// runsRest is how often no run is looked for in the pool after none was found.
	runsRest = 1024
)

// runs are stretches of neighbouring frames, of which each is received into as one
// buffer, so that much payload is one slot. There are few, which stay warm. A
// slot with a run gets the buffer back afterwards that it had before.
type runs struct {
	pool  *pmem.Pool
	owned set // that of Frames
	n     int // frames of a run; 0: none are used, as a frame is as long
	most  int
	have  int               // runs that circulate
	rest  int               // times that the pool is not asked
	heads []uint64          // bit by frame: the first of a run that circulates
	free  []uint32          // runs that are nowhere, by their first frames, the warmest last
	home  map[uint32]uint32 // by first frame of a run in a slot: what the slot had before
	list  []uint32
}

func newRuns(pool *pmem.Pool, owned set) runs {
	r := runs{pool: pool, owned: owned, n: runBytes / pool.FrameSize(), home: map[uint32]uint32{}}
	if r.n > 1 {
		r.most = min(runsMost, int(pool.Frames())/runsPart/r.n)
	}
	r.heads = make([]uint64, (pool.Frames()+63)/64)
	return r
}

// is says whether a frame is the first of a run that circulates.
func (r *runs) is(frame uint32) bool { return r.heads[frame/64]&(1<<(frame%64)) != 0 }

// take takes a run into use.
func (r *runs) take() (head uint32, ok bool) {
	if n := len(r.free); n > 0 {
		head = r.free[n-1]
		r.free = r.free[:n-1]
		return head, true
	}
	if r.have >= r.most {
		return 0, false
	}
	if r.rest > 0 {
		r.rest--
		return 0, false
	}
	if head, ok = r.pool.AllocRun(r.n); !ok {
		r.rest = runsRest
		return 0, false
	}
	r.owned.addAll(r.frames(head))
	r.heads[head/64] |= 1 << (head % 64)
	r.have++
	return head, true
}

// give takes a run back that does not hold anything any more.
func (r *runs) give(head uint32) { r.free = append(r.free, head) }

// end ends a run's time as one: its frames are the caller's, one by one. The buffer
// that was kept for its slot circulates again.
func (r *runs) end(head uint32) (home uint32) {
	r.owned.removeAll(r.frames(head))
	r.heads[head/64] &^= 1 << (head % 64)
	r.have--
	home = r.home[head]
	delete(r.home, head)
	return home
}

// frames lists the frames of a run. It is valid until the next call.
func (r *runs) frames(head uint32) []uint32 {
	r.list = r.list[:0]
	for i := range uint32(r.n) {
		r.list = append(r.list, head+i)
	}
	return r.list
}

// visit shows the frames of a run.
func (r *runs) visit(p Place, head uint32, v Visit) {
	for i := range uint32(r.n) {
		v(p, head+i)
	}
}
