package receive

const (
	// readAt is how many bytes at once make a connection one that is read: the
	// verdict copies them twice, into its ring and out of it, a read does it once.
	readAt = 4096
	// copyBelow and copyAfter are how small how many messages in a row must be for
	// a connection to be copied, which costs no system call for each.
	copyBelow = 2048
	copyAfter = 16
	// copyFrom is from how many connections on that saves more than it costs: to
	// wake a sleeping ring up the verdict has to send its CPU an interrupt, while a
	// socket's own wake-up is a function call, so that it takes large batches to pay.
	copyFrom = 48
)

// switcher puts connections that are read, but bring little, under the verdict. A
// connection begins as one that is read, as there is no safe way back: where the
// verdict is taken away while TCP hands over segments on another CPU, the kernel
// drops those that it has not come to (sk_psock_verdict_recv in net/core/skmsg.c).
type switcher struct {
	copied  *copied
	read    *read
	watch   Watcher
	ready   *ready
	joining []*Stream // that should be copied from now on
}

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
		if s.small == copyAfter && len(w.copied.byCookie) >= copyFrom {
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
