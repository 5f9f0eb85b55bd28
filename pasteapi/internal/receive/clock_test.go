package receive

import (
	"testing"
	"time"

	"github.com/go-quicktest/qt"
)

// Time goes to the stage that is on, and a stage that was interrupted goes on.
func TestClock(t *testing.T) {
	c := NewClock()
	c.overhead = 0
	was := c.enter(Emit)
	qt.Check(t, qt.Equals(was, elsewhere))
	inner := c.enter(Socket)
	qt.Check(t, qt.Equals(inner, Emit))
	time.Sleep(2 * time.Millisecond)
	c.enter(inner)
	c.enter(was)
	qt.Check(t, qt.IsTrue(c.Time[Socket] >= 2*time.Millisecond), qt.Commentf("%v", c.Time))
	qt.Check(t, qt.Equals(c.Time[Harvest]+c.Time[Inject], 0))
	var total time.Duration
	for _, d := range c.Time {
		total += d
	}
	qt.Check(t, qt.IsTrue(total <= time.Since(clockBase)), qt.Commentf("%v", total))

	var off *Clock
	qt.Check(t, qt.Equals(off.enter(Emit), elsewhere))
}
