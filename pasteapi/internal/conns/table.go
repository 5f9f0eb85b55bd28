package conns

// Table finds what belongs to a descriptor.
type Table[T any] struct {
	byFD []*T
	n    int
}

// Find returns what was put in for a descriptor, or nil.
func (t *Table[T]) Find(fd int) *T {
	if uint(fd) >= uint(len(t.byFD)) {
		return nil
	}
	return t.byFD[fd]
}

// Put enters what belongs to a descriptor.
func (t *Table[T]) Put(fd int, v *T) {
	for len(t.byFD) <= fd {
		t.byFD = append(t.byFD, nil)
	}
	t.byFD[fd] = v
	t.n++
}

// Delete takes the entry of a descriptor out.
func (t *Table[T]) Delete(fd int) {
	t.byFD[fd] = nil
	t.n--
}

// Len is the number of entries.
func (t *Table[T]) Len() int { return t.n }

// All calls f for each entry, which it may delete.
func (t *Table[T]) All(f func(*T)) {
	for _, v := range t.byFD {
		if v != nil {
			f(v)
		}
	}
}
