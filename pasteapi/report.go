package pasteapi

// report tells the log what an operator would want to know of the time since
// the last report. It is called about once a second.
func (r *Ring) report() {
	now, last := r.count(), r.reported
	r.reported = now
	if n := now.NoFrames - last.NoFrames; n > 0 {
		r.log.Warn("the pool has no free frame: peers have to send again", "ring", r.pair.rx.ring.RingID, "times", n)
	}
	if n := now.InjectFailed - last.InjectFailed; n > 0 {
		r.log.Warn("the injection device has refused packets: peers have to send again", "ring", r.pair.rx.ring.RingID, "packets", n)
	}
	if n := now.Overflowed - last.Overflowed; n > 0 {
		r.log.Warn("deliveries were lost, as the application has not polled for too long: these connections are read from their sockets from now on",
			"ring", r.pair.rx.ring.RingID, "connections", n)
	}
}
