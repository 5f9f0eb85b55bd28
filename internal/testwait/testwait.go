// Package testwait waits in tests: never without a bound, and with a bound that a
// machine which stands still for a minute does not reach.
package testwait

import (
	"testing"
	"time"

	"github.com/pastenet/paste/internal/childproc"
)

// Patience bounds every wait. It is for a test that hangs, not for one that is
// slow.
const Patience = childproc.Patience

// Until returns when done reports true, which it asks again and again. what is what
// the test waits for.
func Until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting for %s after %v", what, Patience)
		}
	}
}

// Receive takes a value from c, or notices that it was closed.
func Receive[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	select {
	case v := <-c:
		return v
	case <-timeout.C:
		t.Fatalf("gave up waiting for %s after %v", what, Patience)
		panic("not reached")
	}
}
