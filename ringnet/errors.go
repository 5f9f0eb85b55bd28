package ringnet

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/pastenet/paste/pasteapi"
)

// opError wraps an error as package net does. nil and io.EOF stay what they are.
func (c *Conn) opError(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// ended is the error of a connection whose ring told of its end.
func ended(cause error) error {
	var errno syscall.Errno
	switch {
	case cause == nil:
		return io.EOF
	case errors.As(cause, &errno):
		return os.NewSyscallError("read", errno)
	case errors.Is(cause, pasteapi.ErrClosed):
		return net.ErrClosed
	}
	return cause
}
