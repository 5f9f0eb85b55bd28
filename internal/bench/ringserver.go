package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"

	"github.com/pastenet/paste/internal/contender"
	"github.com/pastenet/paste/pasteapi"
	"golang.org/x/sys/unix"
)

// ringServer is PASTE under streams that are not HTTP: an application on one ring
// that echoes, or reads and forgets.
type ringServer struct {
	cfg      *contender.Config
	ring     *pasteapi.Ring
	listener int
	bytes    uint64
}

// runRing serves until ctx ends, by an interface or, without one, by
// copy. It returns the ring's counters if that measures its stages.
func runRing(ctx context.Context, cfg *contender.Config, sc *ServeConfig) (stages *pasteapi.Stats, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	o := pasteapi.Options{NIC: sc.NIC, Pool: cfg.Pool, Receive: sc.Receive, Stages: sc.Stages}
	if sc.Stages && sc.Receive == pasteapi.ReceiveSteered {
		o.Copybreak = -1
	}
	if cfg.BusyPoll {
		o.Spin = -1
	}
	port, err := pasteapi.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, port.Close()) }()
	s := &ringServer{cfg: cfg, ring: port.Ring(0)}
	ln, addr, err := contender.Listen(cfg.Addr)
	if err != nil {
		return nil, err
	}
	defer unix.Close(ln)
	s.listener = ln
	if err := errors.Join(s.ring.Watch(ln), port.Steer(addr.Port())); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, s.ring.Wake)()
	cfg.Ready(addr)
	for ctx.Err() == nil {
		if _, err := s.ring.Poll(-1); err != nil {
			return nil, err
		}
		if err := s.batch(); err != nil {
			return nil, err
		}
		if len(s.ring.Ready()) > 0 {
			if err := s.accept(); err != nil {
				return nil, err
			}
		}
	}
	size := uint64(max(cfg.ResponseBytes, 1))
	cfg.Stats.Requests.Store(s.bytes / size)
	stats := port.Status().Stats
	cfg.Stats.Syscalls.Store(stats.Syscalls)
	if !sc.Stages {
		return nil, nil
	}
	return &stats, nil
}

func (s *ringServer) batch() error {
	for seg := range s.ring.Segments() {
		if seg.Closed() {
			if err := s.ring.CloseAfterSend(seg.Fd()); err != nil {
				return fmt.Errorf("close a connection: %w", err)
			}
			continue
		}
		s.bytes += uint64(len(seg.Payload()))
		if s.cfg.Raw != contender.Echo {
			continue
		}
		err := seg.Forward(seg.Fd())
		if errors.Is(err, pasteapi.ErrTxFull) {
			if err = s.ring.TxSync(); err == nil {
				err = seg.Forward(seg.Fd())
			}
		}
		if err != nil {
			return fmt.Errorf("send back: %w", err)
		}
	}
	return nil
}

func (s *ringServer) accept() error {
	for {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return nil // all done, or it stays in the backlog
		}
		if err := s.ring.Register(fd); err != nil {
			err = errors.Join(err, os.NewSyscallError("close", unix.Close(fd)))
			if !errors.Is(err, pasteapi.ErrNotConnected) { // reset already
				return err
			}
			continue
		}
		if s.cfg.Raw == contender.Sink {
			if err := s.ring.Expect(fd, math.MaxInt64); err != nil { // it is one payload
				return err
			}
		}
	}
}
