package contender

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
)

// TestAdapted: the programs on package ringnet, and net/http, answer as the others do,
// and store what they acknowledge.
func TestAdapted(t *testing.T) {
	for _, k := range Adapted() {
		t.Run(string(k), func(t *testing.T) {
			pool := newPool(t, 8<<20)
			addr, stats, stop := start(t, Config{Kind: k, ResponseBytes: 1000, Pool: pool})
			c := client(t)
			for range 20 {
				r, err := c.Get("http://" + addr.String())
				qt.Assert(t, qt.IsNil(err))
				got, err := io.ReadAll(r.Body)
				qt.Assert(t, qt.IsNil(err))
				r.Body.Close()
				qt.Assert(t, qt.Equals(string(got), strings.Repeat("x", 1000)))
				r, err = c.Post("http://"+addr.String(), "", strings.NewReader("a body"))
				qt.Assert(t, qt.IsNil(err))
				r.Body.Close()
				qt.Assert(t, qt.Equals(r.StatusCode, http.StatusOK))
			}
			c.CloseIdleConnections()
			stop()
			qt.Check(t, qt.Equals(stats.Requests.Load(), 40))
			qt.Check(t, qt.Equals(pool.Log().Len(), 20))
		})
	}
}
