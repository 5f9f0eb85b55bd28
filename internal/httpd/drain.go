package httpd

// drain takes the connections that are waiting to be accepted, and no others.
func (l *loop) drain() {
	l.draining = true
	l.Acceptor.Drain()
}

// dismiss closes the connections on which no request has begun. It is called at
// the end of a batch that has seen what had arrived when draining began.
func (l *loop) dismiss() {
	l.dismissed = true
	for _, c := range l.conns {
		if c != nil && c.phase == serving && !c.sending() && c.wait.part != partBody && c.parser.Idle() {
			l.hangUp(c)
		}
	}
}
