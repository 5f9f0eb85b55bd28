package pasteapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
)

// portPrefix, the process's id and a number make the address at which a Port
// that was opened without a NIC answers, as others do at their NIC's.
const portPrefix = "@paste-port/"

var portNumber atomic.Int64

// answerUnnamed answers for a port without a NIC until Close, in the calling thread's
// network namespace. A port does without it where that cannot be.
func (p *Port) answerUnnamed() {
	name := fmt.Sprintf("%s%d/%d", portPrefix, os.Getpid(), portNumber.Add(1))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		p.opts.Logger.Warn("this port is not shown by status", "cause", err)
		return
	}
	p.unnamed = &control{l: l, status: p.Status, done: make(chan struct{})}
	go p.unnamed.serve()
}

// listUnnamed returns the ports without a NIC. One that has got a NIC meanwhile answers
// there.
func listUnnamed(ctx context.Context) ([]LivePort, error) {
	names, err := listeners(portPrefix)
	if err != nil {
		return nil, err
	}
	var ports []LivePort
	var errs []error
	for _, name := range names {
		p, err := queryPort(ctx, portPrefix+name, "port "+name)
		switch {
		case err == nil && p.Status.NIC == "":
			ports = append(ports, p)
		case err != nil && !errors.Is(err, os.ErrNotExist): // it ended meanwhile
			errs = append(errs, err)
		}
	}
	return ports, errors.Join(errs...)
}
