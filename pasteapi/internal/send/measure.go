package send

import (
	"fmt"
	"os"
	"time"
	"unsafe"

	"github.com/pastenet/paste/internal/uring"
	"golang.org/x/sys/unix"
)

const (
	// measureBatch is how many sends one measured batch has.
	measureBatch = 32
	// measureRounds is how many batches are sent by each means. The quickest
	// counts: everything that disturbs a batch makes it slower.
	measureRounds = 40
)

// Costs is what one send of a batch costs by either means, without what a network
// would add, which is the same for both.
type Costs struct{ Plain, URing time.Duration }

// Measure measures the costs on this machine, in one to two milliseconds. The error
// wraps uring.ErrNotAvailable where there is no io_uring.
func Measure() (_ Costs, err error) {
	io, err := uring.New(measureBatch, uring.Options{})
	if err != nil {
		return Costs{}, err
	}
	defer io.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Costs{}, fmt.Errorf("measure sends: %w", os.NewSyscallError("socketpair", err))
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])

	payload, sink := make([]byte, 64), make([]byte, measureBatch*64)
	means := [2]func() error{
		func() error { return plainBatch(pair[0], payload) },
		func() error { return uringBatch(io, pair[0], payload) },
	}
	var best [2]time.Duration
	for round := range 2 * measureRounds {
		m := (round ^ round>>1) & 1 // one, the other, the other, the one …
		start := time.Now()
		err := means[m]()
		if took := time.Since(start); best[m] == 0 || took < best[m] {
			best[m] = took
		}
		if err != nil {
			return Costs{}, fmt.Errorf("measure sends: %w", err)
		}
		for left := len(sink); left > 0; {
			n, err := unix.Read(pair[1], sink)
			if err != nil && err != unix.EINTR {
				return Costs{}, fmt.Errorf("measure sends: %w", os.NewSyscallError("read", err))
			}
			left -= max(n, 0)
		}
	}
	return Costs{Plain: best[0] / measureBatch, URing: best[1] / measureBatch}, nil
}

func plainBatch(fd int, payload []byte) error {
	var c Counters
	for range measureBatch {
		if n := c.send(fd, payload); n != len(payload) {
			return fmt.Errorf("a send has taken %d of %d bytes", n, len(payload))
		}
	}
	return nil
}

func uringBatch(io *uring.Ring, fd int, payload []byte) error {
	for range measureBatch {
		io.GetSQE().Send(fd, unsafe.Pointer(&payload[0]), uint32(len(payload)), sendFlags)
	}
	if _, err := io.Submit(); err != nil {
		return err
	}
	for range measureBatch {
		cqe, ok := io.PeekCQE()
		if !ok || int(cqe.Res) != len(payload) {
			return fmt.Errorf("a send by io_uring has not taken %d bytes at once", len(payload))
		}
		io.Advance(1)
	}
	return nil
}
