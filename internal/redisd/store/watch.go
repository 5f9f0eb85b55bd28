package store

// Watches knows who wants to know of changes to which name.
type Watches struct {
	watched map[string]map[*Watch]struct{}
	// Expired counts the names that were removed because their time had come.
	Expired uint64
}

// Watch is somebody's interest in names. Hit becomes true when one of them is
// changed.
type Watch struct {
	Hit   bool
	names []string
}

// Watch adds a name.
func (db *DB) Watch(w *Watch, name []byte) {
	if db.watched == nil {
		db.watched = map[string]map[*Watch]struct{}{}
	}
	db.Find(name) // so that what has expired is gone before
	set := db.watched[string(name)]
	if _, ok := set[w]; ok {
		return
	}
	if set == nil {
		set = map[*Watch]struct{}{}
		db.watched[string(name)] = set
	}
	set[w] = struct{}{}
	w.names = append(w.names, string(name))
}

// Unwatch ends all of w's interest.
func (db *DB) Unwatch(w *Watch) {
	for _, name := range w.names {
		set := db.watched[name]
		delete(set, w)
		if len(set) == 0 {
			delete(db.watched, name)
		}
	}
	w.Hit, w.names = false, nil
}

// Touch says that a name is changed.
func (db *DB) Touch(name []byte) {
	if len(db.watched) > 0 {
		for w := range db.watched[string(name)] {
			w.Hit = true
		}
	}
}

// Names are what w wants to know of.
func (w *Watch) Names() []string { return w.names }
