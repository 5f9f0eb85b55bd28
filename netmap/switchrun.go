package netmap

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Run forwards until ctx ends, which is no error. A port whose NIC goes is detached.
func (s *Switch) Run(ctx context.Context) error {
	s.mu.Lock()
	for s.busy {
		s.rested.Wait()
	}
	s.running = true
	s.mu.Unlock()
	defer s.rest()
	stop := context.AfterFunc(ctx, s.nudge)
	defer stop()
	for ctx.Err() == nil {
		s.work()
		n, err := s.turn()
		if err != nil {
			return err
		}
		if n == 0 {
			if err := s.sleep(); err != nil {
				return err
			}
		}
	}
	return nil
}

// rest ends Run: what was asked for meanwhile is done.
func (s *Switch) rest() {
	for {
		s.work()
		s.mu.Lock()
		if len(s.jobs) == 0 {
			s.running = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

func (s *Switch) work() {
	s.mu.Lock()
	jobs := s.jobs
	s.jobs = nil
	s.mu.Unlock()
	for _, job := range jobs {
		job()
	}
}

// sleep waits for frames; not long while some wait to be taken by a NIC.
func (s *Switch) sleep() error {
	ts := unix.NsecToTimespec(int64(lookStep))
	for _, m := range s.members {
		if m.port.unsynced() {
			ts = unix.NsecToTimespec(int64(txStep))
		}
	}
	fds := []unix.PollFd{{Fd: int32(s.epfd), Events: unix.POLLIN}}
	if _, err := unix.Ppoll(fds, &ts, nil); err != nil && err != unix.EINTR {
		return fmt.Errorf("switch: wait: %w", os.NewSyscallError("ppoll", err))
	}
	var b [8]byte
	_, _ = unix.Read(s.wake, b[:])
	for _, m := range s.members {
		if err := m.port.alive(); err != nil {
			s.lose(m.port, err)
			break
		}
	}
	return nil
}

// lose detaches a port that does not work any more.
func (s *Switch) lose(p *Port, err error) {
	s.opts.Logger.Warn("a port of the switch is gone", "port", p.Name(), "cause", err)
	s.remove(p)
	if err := p.Close(); err != nil {
		s.opts.Logger.Warn("a port of the switch is gone, and closing it failed", "port", p.Name(), "cause", err)
	}
}
