package pasteapi

import (
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
