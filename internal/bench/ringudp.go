package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/pastenet/paste/internal/contender"
	"github.com/pastenet/paste/internal/udpload"
	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// answersAtOnce is how many datagrams are looked at before the answers to them leave: so
// the client has something to do meanwhile.
const answersAtOnce = 8

// runRingUDP is PASTE under datagrams: an application on one ring that sends them back,
// or counts them, until ctx ends.
func runRingUDP(ctx context.Context, cfg *contender.Config, sc *ServeConfig) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	o := pasteapi.Options{NIC: sc.NIC, Pool: cfg.Pool, Receive: sc.Receive, Spin: 50 * time.Microsecond} // the last as serve has it
	if sc.NAPIPoll > 0 {
		o.Spin, o.NAPIPoll = 0, sc.NAPIPoll
	}
	port, err := pasteapi.Open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, port.Close()) }()
	fd, err := contender.ListenUDP(cfg.Addr)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ring := port.Ring(0)
	if err := ring.Register(fd); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, ring.Wake)()
	cfg.Ready(cfg.Addr)
	n := uint64(0)
	for ctx.Err() == nil {
		if _, err := ring.Poll(-1); err != nil {
			return err
		}
		for seg := range ring.Segments() {
			n++
			if err := serveDatagram(cfg.Raw, &seg, n); err != nil {
				return fmt.Errorf("send back: %w", err)
			}
			if n%answersAtOnce == 0 {
				if err := ring.TxSync(); err != nil {
					return err
				}
			}
		}
	}
	cfg.Stats.Requests.Store(n)
	cfg.Stats.Syscalls.Store(port.Status().Stats.Syscalls)
	return nil
}

func serveDatagram(raw contender.Raw, seg *pasteapi.Segment, n uint64) error {
	if raw == contender.Echo {
		return seg.Forward(seg.Fd())
	}
	var answer [udpload.AnswerSize]byte
	if a := contender.SinkAnswer(&answer, seg.Payload(), n); a != nil {
		return seg.Reply(a)
	}
	return nil
}
