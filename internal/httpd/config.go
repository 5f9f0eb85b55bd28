package httpd

import (
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/pastenet/paste/internal/intake"
	"github.com/pastenet/paste/internal/ringserve"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// Ring is what the server uses of a *pasteapi.Ring, whose documentation
// applies.
type Ring interface {
	ringserve.Ring
	Keep(s *pasteapi.Slot) (frame uint32, err error)
	Expect(fd int, n int64) error
}

// Persist says what becomes of the body of a POST or PUT.
type Persist uint8

const (
	// PersistZeroCopy appends the buffers in which the body was received.
	PersistZeroCopy Persist = iota
	// PersistCopy appends a copy, and the buffers stay in the ring.
	PersistCopy
	// PersistNone answers and forgets.
	PersistNone
)

var persistNames = [...]string{"zero-copy", "copy", "none"}

// String is the name that ParsePersist takes.
func (p Persist) String() string { return persistNames[p] }

// ParsePersist reads "zero-copy", "copy" or "none".
func ParsePersist(s string) (Persist, error) {
	for i, name := range persistNames {
		if s == name {
			return Persist(i), nil
		}
	}
	return 0, fmt.Errorf("unknown persistence %q: want zero-copy, copy or none", s)
}

// OnFull says what happens when a body finds no room in the pool or the log.
type OnFull uint8

const (
	// Refuse answers 507 and keeps everything that is stored.
	Refuse OnFull = iota
	// Wrap drops the older half of the log and goes on.
	Wrap
)

var onFullNames = [...]string{"refuse", "wrap"}

// String is the name that ParseOnFull takes.
func (o OnFull) String() string { return onFullNames[o] }

// ParseOnFull reads "refuse" or "wrap".
func ParseOnFull(s string) (OnFull, error) {
	for i, name := range onFullNames {
		if s == name {
			return OnFull(i), nil
		}
	}
	return 0, fmt.Errorf("unknown choice %q for a full log: want refuse or wrap", s)
}

// Config of a server. The zero value of each field but Addr is usable.
type Config struct {
	// Addr to listen on, "host:port". An IP address, or nothing for all of
	// them; port 0 lets the kernel choose.
	Addr string
	// ResponseBytes is the length of the body that answers a GET; default 64.
	ResponseBytes int
	Persist       Persist
	OnFull        OnFull
	// Retain says what of the log is dropped before it is full.
	Retain Retention
	// Keys is how idempotency keys are kept.
	Keys intake.Options
	// MaxConns is the number of connections per ring beyond which new ones get
	// 503; default 16384. The ring's own limit must not be below it.
	MaxConns int
	// BodyLimit in bytes, beyond which a body gets 413; default 64 MiB, or what
	// the pool allows for if that is less. More than that is an error.
	BodyLimit int64
	// BodyRate is how many bytes of a body must come each second, on average, once
	// StallTimeout has passed since its header; else the client gets 408. Default
	// 512, and less than 0 for any.
	BodyRate int64
	// Rings is how many Run will get; default 1. They share what unfinished bodies
	// may take of the pool.
	Rings int
	// HeaderTimeout is how long a request's header may take, from its first byte
	// to its last, and how long the first request of a connection is waited for;
	// 0 is 30 seconds, and less than 0 for ever, as of the next two. Then the
	// client gets 408, if it had begun, and the connection is closed.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection may wait for its next request before
	// it is closed; default 2 minutes.
	IdleTimeout time.Duration
	// StallTimeout is how long a body may take for each 4 KiB that arrive, or for
	// less at its end, before the client gets 408; and likewise how long a client
	// may take to read 4 KiB of replies that do not fit the socket, before the
	// connection is reset. Default 1 minute.
	StallTimeout time.Duration
	// DrainTimeout is how long Run goes on, once its context is done, for the
	// requests that have begun; less than 0 is not at all. Default 10 seconds.
	DrainTimeout time.Duration
	// Encrypted says that the rings carry what is encrypted in the sockets: nothing is
	// written to those, and connections that are refused are closed without a word.
	Encrypted bool
	// CPUs to which the rings' threads are pinned, ring i to CPUs[i modulo
	// their number]; none leaves it to the scheduler.
	CPUs []int
	// Logger gets what an operator should see; default slog.Default().
	Logger *slog.Logger
}

// The defaults of Config.
const (
	DefaultResponseBytes = 64
	DefaultMaxConns      = 16384
	DefaultBodyLimit     = 64 << 20
	DefaultBodyRate      = 512
	DefaultHeaderTimeout = 30 * time.Second
	DefaultIdleTimeout   = 2 * time.Minute
	DefaultStallTimeout  = time.Minute
	DefaultDrainTimeout  = 10 * time.Second
)

func (c *Config) fill() error {
	if c.ResponseBytes < 0 || c.MaxConns < 0 || c.BodyLimit < 0 || c.Rings < 0 {
		return fmt.Errorf("negative limit: response bytes %d, connections %d, body limit %d, rings %d", c.ResponseBytes, c.MaxConns, c.BodyLimit, c.Rings)
	}
	if int(c.Persist) >= len(persistNames) || int(c.OnFull) >= len(onFullNames) {
		return fmt.Errorf("unknown mode: persist %d, on-full %d", c.Persist, c.OnFull)
	}
	if r := c.Retain; r.Bytes < 0 || r.Age < 0 || r.Age > 0 && r.Age < time.Second || c.Keys.Window < 0 {
		return fmt.Errorf("what is kept: %d bytes for %v, keys for %v; none may be negative, and an age is at least a second", r.Bytes, r.Age, c.Keys.Window)
	}
	if c.ResponseBytes == 0 {
		c.ResponseBytes = DefaultResponseBytes
	}
	if c.MaxConns == 0 {
		c.MaxConns = DefaultMaxConns
	}
	if c.BodyRate == 0 {
		c.BodyRate = DefaultBodyRate
	}
	if c.Rings == 0 {
		c.Rings = 1
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&c.HeaderTimeout, DefaultHeaderTimeout}, {&c.IdleTimeout, DefaultIdleTimeout}, {&c.StallTimeout, DefaultStallTimeout}, {&c.DrainTimeout, DefaultDrainTimeout}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return nil
}

// inputFrames is how many frames the unfinished input of all connections of a
// ring may hold, and so the body of one: half of the pool, shared by the rings,
// and no more than one record can refer to. Of a log that wraps it is a quarter,
// for the log leaves that much free.
func inputFrames(c *Config, p *pmem.Pool) int {
	share := 2
	if c.OnFull == Wrap {
		share = 4
	}
	return min(int(p.Frames()-p.FirstFrame())/share/max(c.Rings, 1), p.Log().MaxFragments())
}

// LargestBody is the most bytes of a body for which a server with this
// configuration has room in an empty pool.
func (c *Config) LargestBody(p *pmem.Pool) int64 {
	if c.Persist == PersistNone {
		return math.MaxInt64
	}
	// Pieces before it is copied together, and what is left at both ends.
	return int64(max(inputFrames(c, p)-3, 0)) * int64(p.FrameSize())
}

// fitBody refuses a body limit that can never be reached, and completes one that
// is not given.
func (c *Config) fitBody(p *pmem.Pool) error {
	most := c.LargestBody(p)
	if c.BodyLimit > most {
		return fmt.Errorf("bodies of up to %d bytes (BodyLimit) cannot be kept: with %d frames of %d bytes and %d rings the pool allows for %d; lower the limit or make the pool larger",
			c.BodyLimit, p.Frames()-p.FirstFrame(), p.FrameSize(), max(c.Rings, 1), most)
	}
	if c.BodyLimit == 0 {
		c.BodyLimit = min(DefaultBodyLimit, most)
	}
	return nil
}
