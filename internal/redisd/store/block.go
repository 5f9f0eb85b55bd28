package store

// Blocked knows who waits for which name to get more entries.
type Blocked struct {
	waits map[string][]*Wait
	ready []*Wait
}

// Wait is somebody who waits for one of several names.
type Wait struct {
	// Ready is called, by whoever has the DB locked, when a name has got
	// something, between two commands.
	Ready func()
	names []string
	hit   bool
}

// Wait adds w to those who wait for the names.
func (db *DB) Wait(w *Wait, names [][]byte) {
	if db.waits == nil {
		db.waits = map[string][]*Wait{}
	}
	w.hit = false
	for _, n := range names {
		w.names = append(w.names, string(n))
		db.waits[string(n)] = append(db.waits[string(n)], w)
	}
}

// EndWait takes w from the lists.
func (db *DB) EndWait(w *Wait) {
	for _, name := range w.names {
		list := db.waits[name]
		kept := list[:0]
		for _, o := range list {
			if o != w {
				kept = append(kept, o)
			}
		}
		if len(kept) == 0 {
			delete(db.waits, name)
		} else {
			db.waits[name] = kept
		}
	}
	w.names = nil
}

// Signal says that a name has got something that others may wait for.
func (db *DB) Signal(name []byte) {
	if len(db.waits) == 0 {
		return
	}
	for _, w := range db.waits[string(name)] {
		if !w.hit {
			w.hit = true
			db.ready = append(db.ready, w)
		}
	}
}

// Wake calls those who were signalled, in the order in which they began to wait.
func (db *DB) Wake() {
	for len(db.ready) > 0 {
		list := db.ready
		db.ready = nil
		for _, w := range list {
			w.hit = false
			w.Ready()
		}
	}
}

// Waiting is how many waits there are.
func (db *DB) Waiting() (n int) {
	for _, list := range db.waits {
		n += len(list)
	}
	return n
}
