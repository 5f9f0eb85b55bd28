package pasteapi

// portPrefix, the process's id and a number make the address at which a Port
// that was opened without a NIC answers, as others do at their NIC's.
const portPrefix = "@paste-port/"

// answerUnnamed answers for a port without a NIC until Close, in the calling thread's
// network namespace. A port does without it where that cannot be.
func (p *Port) answerUnnamed() {
	l, err := listenAs(portPrefix)
	if err != nil {
		p.opts.Logger.Warn("this port is not shown by status", "cause", err)
		return
	}
	p.unnamed = &control{l: l, status: p.Status, done: make(chan struct{})}
	go p.unnamed.serve()
}
