package pmem

// AllocRun takes n free data frames that are neighbours, and so one stretch of
// memory, and returns the first; each has a reference of the caller's. It may find
// none although n frames are free. It is for buffers that live long: a search goes
// through the whole pool when that has been full once.
func (p *Pool) AllocRun(n int) (first uint32, ok bool) {
	if p.readOnly || n < 1 {
		return 0, false
	}
	return p.frames.allocRun(uint32(n))
}

func (t *frameTable) allocRun(n uint32) (first uint32, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.refs == nil {
		return 0, false
	}
	if first, ok = t.findRun(t.next, t.end, n); ok {
		for f := t.next; f < first; f++ { // those that are free are found by the stack from now on
			if t.refs[f-t.first] == 0 {
				t.push(f)
			}
		}
		t.next = first + n
	} else if first, ok = t.findRun(t.first, t.next, n); !ok {
		return 0, false
	}
	for f := first; f < first+n; f++ {
		t.refs[f-t.first] = 1 // the stack may have it still, see alloc
	}
	t.used += n
	return first, true
}

// findRun finds n free frames in a row, from one up to another.
func (t *frameTable) findRun(from, to, n uint32) (first uint32, ok bool) {
	free := uint32(0)
	for f := from; f < to; f++ {
		if free++; t.refs[f-t.first] != 0 {
			free = 0
		}
		if free == n {
			return f + 1 - n, true
		}
	}
	return 0, false
}
