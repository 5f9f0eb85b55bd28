package framelog

import (
	"errors"
	"fmt"
	"time"

	"github.com/pastenet/paste/netmap"
	"github.com/pastenet/paste/pmem"
)

// Mode says how frames get into the log.
type Mode int

const (
	// Off writes nothing.
	Off Mode = iota
	// Copy copies each frame into frames of the log's own.
	Copy
	// ZeroCopy leaves it where the NIC put it.
	ZeroCopy
)

var modeNames = [...]string{Off: "off", Copy: "copy", ZeroCopy: "zero-copy"}

// String is "off", "copy" or "zero-copy".
func (m Mode) String() string {
	if m < 0 || int(m) >= len(modeNames) {
		return fmt.Sprintf("Mode(%d)", int(m))
	}
	return modeNames[m]
}

// MarshalText makes the mode a word in JSON.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (m *Mode) UnmarshalText(text []byte) (err error) {
	*m, err = ParseMode(string(text))
	return err
}

// ParseMode is the inverse of String.
func ParseMode(s string) (Mode, error) {
	for m, name := range modeNames {
		if s == name {
			return Mode(m), nil
		}
	}
	return Off, fmt.Errorf("unknown log mode %q: must be off, copy or zero-copy", s)
}

// Stats are a Writer's counters.
type Stats struct {
	Frames  uint64 `json:"frames"`
	Bytes   uint64 `json:"bytes"`
	Commits uint64 `json:"commits"`
	Wrapped uint64 `json:"wrapped"` // records that were dropped to make room for new ones
	Full    uint64 `json:"full"`    // frames that were not written down for want of room
}

// Writer writes a switch's frames into a pool's log: a netmap.FrameLog. When the
// pool is full it drops the older half of the records, or, with keep, writes no more.
type Writer struct {
	pool    *pmem.Pool
	log     *pmem.Log
	mode    Mode
	keep    bool
	reserve int
	names   []string // of the ports
	buf     []byte   // header
	frame   []byte
	frags   []pmem.Fragment
	now     time.Time
	stats   Stats
	dirty   bool
}

var _ netmap.FrameLog = (*Writer)(nil)

// NewWriter claims a pool for a switch's log. keep: a full log keeps what it has.
// reserve is how many of the pool's frames the log leaves to the switch's ports.
func NewWriter(pool *pmem.Pool, mode Mode, keep bool, reserve int) (*Writer, error) {
	if err := pool.Claim(Purpose); err != nil {
		return nil, err
	}
	return &Writer{pool: pool, log: pool.Log(), mode: mode, keep: keep, reserve: reserve}, nil
}

// Stats are the counters; they are read when the switch rests.
func (w *Writer) Stats() Stats { return w.stats }

// Attached writes down what a port is called.
func (w *Writer) Attached(port int, name string) error {
	for len(w.names) <= port {
		w.names = append(w.names, "")
	}
	w.names[port] = name
	if w.mode == Off {
		return nil
	}
	return w.name(port)
}

func (w *Writer) name(port int) error {
	b := append(header(w.buf, kindPort, port, time.Now()), w.names[port]...)
	_, err := w.log.AppendHeader(b, nil, false)
	if errors.Is(err, pmem.ErrFull) {
		if err = w.room(false); err == nil {
			_, err = w.log.AppendHeader(b, nil, false)
		}
	}
	if errors.Is(err, pmem.ErrFull) && w.keep {
		return nil
	}
	w.dirty = w.dirty || err == nil
	return err
}

// Frame writes down a frame, at the time of the batch that it came with.
func (w *Writer) Frame(port int, pieces []netmap.Piece) (kept bool, err error) {
	if w.mode == Off {
		return false, nil
	}
	if w.now.IsZero() {
		w.now = time.Now()
	}
	w.buf = header(w.buf, kindFrame, port, w.now)
	bytes, err := w.append(pieces)
	for errors.Is(err, pmem.ErrFull) && !w.keep {
		if err = w.room(true); err != nil {
			return false, err
		}
		w.buf = header(w.buf, kindFrame, port, w.now)
		bytes, err = w.append(pieces)
	}
	switch {
	case errors.Is(err, pmem.ErrFull):
		w.stats.Full++
		return false, nil
	case err != nil:
		return false, fmt.Errorf("write down a frame: %w", err)
	}
	w.dirty = true
	w.stats.Frames++
	w.stats.Bytes += uint64(bytes)
	return w.mode == ZeroCopy, nil
}

func (w *Writer) append(pieces []netmap.Piece) (bytes int, err error) {
	if w.pool.Free() < w.reserve {
		return 0, pmem.ErrFull
	}
	w.frags, w.frame = w.frags[:0], w.frame[:0]
	for _, p := range pieces {
		bytes += int(p.Len)
		if w.mode == Copy {
			w.frame = append(w.frame, p.Bytes()...)
		} else if p.Len > 0 {
			w.frags = append(w.frags, pmem.Fragment{Frame: p.Buf, Off: netmap.PieceOffset, Len: p.Len})
		}
	}
	if w.mode == Copy {
		_, err = w.log.AppendCopyHeader(w.buf, w.frame)
	} else {
		_, err = w.log.AppendHeader(w.buf, w.frags, true)
	}
	return bytes, err
}

// Commit makes everything durable.
func (w *Writer) Commit() error {
	w.now = time.Time{}
	if !w.dirty {
		return nil
	}
	w.dirty = false
	w.stats.Commits++
	return w.log.Commit()
}

// MakeRoom has frames for the switch's ports: those of older records. It is not called
// as long as the reserve suffices.
func (w *Writer) MakeRoom() error {
	if w.keep {
		return fmt.Errorf("the log has all of the pool: %w", pmem.ErrFull)
	}
	return w.room(true)
}

// room drops the older half of the records, at least one.
func (w *Writer) room(names bool) error {
	if err := w.Commit(); err != nil {
		return err
	}
	have := w.log.Len()
	if have == 0 {
		return fmt.Errorf("the pool is too small for a log: %w", pmem.ErrFull)
	}
	drop := uint64(max(have/2, 1))
	if err := w.log.Truncate(w.log.Head() + drop - 1); err != nil {
		return err
	}
	w.stats.Wrapped += drop
	for port := range w.names {
		if names {
			if err := w.name(port); err != nil {
				return err
			}
		}
	}
	return nil
}
