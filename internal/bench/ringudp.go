package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/pastenet/paste/internal/contender"
	"github.com/pastenet/paste/internal/udpload"
	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// runRingUDP is PASTE under datagrams: an application on one ring that sends them back,
// or counts them, until ctx ends.
func runRingUDP(ctx context.Context, cfg *contender.Config, sc *ServeConfig) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	port, err := pasteapi.Open(ctx, pasteapi.Options{NIC: sc.NIC, Pool: cfg.Pool, Receive: sc.Receive})
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
