package send

import (
	"errors"
	"fmt"
	"sync"

	"github.com/pastenet/paste/internal/uring"
)

// Means is how a batch is sent: by io_uring in one system call, or by a send for
// each connection.
type Means struct {
	URing bool
	Why   string // in words
	// Missing is why there is no io_uring, if that is what decided.
	Missing error
}

var measured = sync.OnceValues(Measure)

// Cheaper says which means costs less on this machine. It is measured once in the
// life of a process.
func Cheaper() Means {
	c, err := measured()
	return choose(c, err)
}

func choose(c Costs, err error) Means {
	switch {
	case errors.Is(err, uring.ErrNotAvailable):
		return Means{Why: err.Error(), Missing: err}
	case err != nil:
		return Means{Why: fmt.Sprintf("the costs could not be measured: %v", err), Missing: err}
	}
	return Means{URing: c.URing < c.Plain, Why: fmt.Sprintf("a send costs %d ns by a system call of its own and %d ns in a batch of io_uring",
		c.Plain.Nanoseconds(), c.URing.Nanoseconds())}
}
