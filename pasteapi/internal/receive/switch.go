package receive

const (
	// readAt is how many bytes at once make a connection one that is read: the
	// verdict copies them twice, into its ring and out of it, a read does it once.
	readAt = 4096
	// copyBelow and copyAfter are how small how many messages in a row must be for
	// a connection to be copied, which costs no system call for each.
	copyBelow = 2048
	copyAfter = 16
	// batchUnit is what a connection counts in the average, of which a new batch is one
	// part in as many.
	batchUnit = 64
)

// switcher puts connections that are read, but bring little, under the verdict. A
// connection begins as one that is read, as there is no safe way back: where the
// verdict is taken away while TCP hands over segments on another CPU, the kernel
// drops those that it has not come to (sk_psock_verdict_recv in net/core/skmsg.c).
type switcher struct {
	copied   *copied
	read     *read
	watch    Watcher
	ready    *ready
	joining  []*Stream // that should be copied from now on
	copyFrom int       // Options.CopyFrom
	since    int       // connections that had something since the ring slept last
	batch    int       // the same between two sleeps, on average, in parts of batchUnit
}

// sleeps notes that the ring sleeps.
func (w *switcher) sleeps() {
	if w.since > 0 { // else it woke up for nothing
		w.batch += w.since - w.batch/batchUnit
		w.since = 0
	}
}

// pays says whether so much comes for each wake-up that copying pays; a ring that is
// too busy to sleep has none.
func (w *switcher) pays() bool { return max(w.batch/batchUnit, w.since) >= w.copyFrom }

// fetch moves the connections that bring little.
func (w *switcher) fetch() error {
	for _, s := range w.joining {
		w.join(s)
	}
	w.joining = w.joining[:0]
	return nil
}

func (w *switcher) pending() bool { return len(w.joining) > 0 }

// noted looks at what a read of everything has brought; all says that the socket
// is empty.
func (w *switcher) noted(s *Stream, n int, all bool) {
	// It falls slowly: what is left of a large message says nothing of the next one.
	if s.hint = max(n+n/4, s.hint-s.hint/4); !all {
		s.hint = 2 * n
	}
	switch {
	case n >= readAt:
		s.large = true // for good
	case s.large || n >= copyBelow:
		s.small = 0
	default:
		s.small = min(s.small+1, copyAfter)
		if s.small == copyAfter && w.pays() {
			w.joining = append(w.joining, s)
		}
	}
}

// join puts a connection under the verdict. Its socket is read empty before: then
// the verdict only ever sees whole segments of which nothing was consumed.
func (w *switcher) join(s *Stream) {
	s.small = 0
	if !s.socket || s.lost || s.paused || s.gone || s.pending() || !s.wants() || w.read.rest(s) != nil {
		return
	}
	w.copied.fromSocket(s, false)
	w.copied.count.Syscalls++
	if err := w.copied.add(s); err != nil {
		w.copied.leave(s)
	}
	w.ready.add(s)
	if s.socket {
		s.large = true // its peer has finished, for one: there is no second try
		return
	}
	w.copied.count.Joined++
	w.copied.count.Syscalls++
	_ = w.watch.WantInput(s.FD, false)
	w.read.look(s)
}
