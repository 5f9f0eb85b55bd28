package redisd

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/pastenet/paste/internal/redisd/resp"
	"github.com/pastenet/paste/internal/ringserve"
	"github.com/pastenet/paste/pmem"
)

// Ring is what the server uses of a *pasteapi.Ring, whose documentation
// applies.
type Ring interface {
	ringserve.Ring
	Expect(fd int, n int64) error
	Hold(fd int) error
	Release(fd int) error
}

// Config of a server. The zero value of each field but Addr is usable.
type Config struct {
	// Addr to listen on, "host:port", as package httpd's.
	Addr string
	// Password that clients have to give by AUTH or HELLO; "" for none.
	Password string
	// Verify compares strings with their checksums before they are sent.
	Verify bool
	// MaxConns is the number of connections per ring beyond which new ones are
	// refused; default 10000, as Redis'. The ring's own limit must not be below it.
	MaxConns int
	// MaxBulk is the longest argument in bytes; default an eighth of the pool, at
	// most 512 MiB.
	MaxBulk int
	// IdleTimeout is how long a connection may wait for its next command; 0 is for
	// ever, as with Redis.
	IdleTimeout time.Duration
	// StallTimeout is how long a client may take to send 4 KiB of a command that it
	// has begun, or the rest of it, and to read 4 KiB of answers that wait for it;
	// default 1 minute, less than 0 for ever.
	StallTimeout time.Duration
	// DrainTimeout is how long Run goes on, once its context is done, for commands
	// that have begun to arrive; default 10 seconds, less than 0 is not at all.
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
	DefaultMaxConns     = 10000
	DefaultStallTimeout = time.Minute
	DefaultDrainTimeout = 10 * time.Second
)

func (c *Config) fill(p *pmem.Pool) error {
	if c.MaxConns < 0 || c.MaxBulk < 0 || c.IdleTimeout < 0 {
		return fmt.Errorf("negative limit: connections %d, argument %d bytes, idle timeout %v", c.MaxConns, c.MaxBulk, c.IdleTimeout)
	}
	most := min(int64(p.Frames()-p.FirstFrame())*int64(p.FrameSize())/2, resp.MaxBulk)
	if int64(c.MaxBulk) > most {
		return fmt.Errorf("arguments of up to %d bytes cannot be stored: this pool allows for %d; lower the limit or make the pool larger", c.MaxBulk, most)
	}
	if c.MaxBulk == 0 {
		c.MaxBulk = int(most / 4)
	}
	if c.MaxConns == 0 {
		c.MaxConns = DefaultMaxConns
	}
	if c.StallTimeout == 0 {
		c.StallTimeout = DefaultStallTimeout
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = DefaultDrainTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return nil
}
