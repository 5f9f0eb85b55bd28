package pasteapi

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Hold has the ring take nothing more of a connection until Release, so that its
// peer has to wait: frames that are steered are not acknowledged, and other bytes
// stay in the socket, whose window closes. Slots of what had arrived may still come;
// of a connection that was copied these are up to 64 KiB and what was on its
// way, and it is read from its socket ever after. Errors: ErrNotRegistered, ErrClosed.
func (r *Ring) Hold(fd int) error {
	c, err := r.lookUp("hold", fd)
	if err != nil {
		return err
	}
	if !c.held {
		c.held = true
		if c.dgram != nil {
			r.udp.in.Pause(c.dgram, true)
		} else {
			r.in.Hold(&c.in)
		}
	}
	return nil
}

// Release ends Hold. What was held back comes first.
func (r *Ring) Release(fd int) error {
	c, err := r.lookUp("release", fd)
	if err != nil {
		return err
	}
	if c.held {
		c.held = false
		r.goOn(c)
		r.expose()
	}
	return nil
}

// goOn receives again from a connection that nothing holds up any more.
func (r *Ring) goOn(c *conn) {
	if c.dgram != nil {
		r.udp.in.Pause(c.dgram, false)
		return
	}
	if c.held || c.stuck {
		return
	}
	// A device that takes nothing any more shows in the next sync; TCP sends
	// again.
	_ = r.in.Release(&c.in)
}

// WatchRoom makes Poll return, once, when there is room to send in the socket of a
// connection, or when it has ended; Ready lists its descriptor then. It is for
// programs that send by write(2), and got EAGAIN.
func (r *Ring) WatchRoom(fd int) error {
	c, err := r.lookUp("watch for room", fd)
	if err != nil {
		return err
	}
	c.room = true
	// It has the kernel look anew, as the room may have come already.
	if c.dgram != nil {
		err = r.udp.out.Await(c.dgram, true)
	} else {
		r.own.Syscalls++
		err = r.wait.WantInput(fd, r.in.FromSocket(&c.in))
	}
	if err != nil {
		return fmt.Errorf("watch fd %d for room: %w", fd, err)
	}
	return nil
}

// hasRoom notes that an event tells what WatchRoom has asked for.
func (r *Ring) hasRoom(c *conn, events uint32) {
	if c.room && events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.room = false
		r.ready = append(r.ready, c.in.FD)
	}
}

func (r *Ring) lookUp(what string, fd int) (*conn, error) {
	if r.closed {
		return nil, ErrClosed
	}
	c := r.conns.Find(fd)
	if c == nil {
		return nil, fmt.Errorf("%s fd %d: %w", what, fd, ErrNotRegistered)
	}
	return c, nil
}
