package xsk

// SetSettleTries sets how often Open tries to get a queue that is in use, and
// returns how often it was.
func SetSettleTries(n int) (old int) {
	old, settleTries = settleTries, n
	return old
}
