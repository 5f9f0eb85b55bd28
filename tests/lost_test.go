package tests

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
)

// A server whose pool file is taken away while the NIC receives into it ends by
// itself with one sentence, and gives the NIC back.
func TestPoolFileLost(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"removed": os.Remove,
		"emptied": func(path string) error { return os.Truncate(path, 0) },
		"cut off": func(path string) error { return os.Truncate(path, 32<<20) },
	} {
		for _, kind := range []string{"http", "kv"} {
			t.Run(strings.ReplaceAll(name, " ", "-")+"/"+kind, func(t *testing.T) {
				l := newLab(t, netlab.Config{})
				s := serveKind(t, l, kind, poolFile(t))
				c := dial(t, l, s.addr)
				written := make(chan struct{})
				go func() { // until the server is gone
					defer close(written)
					body := random(100_000, 1)
					for n := range 1 << 30 {
						if n == 10 {
							if err := lose(s.pool); err != nil {
								t.Error(err)
							}
						}
						if _, err := fmt.Fprintf(c, "PUT /k/%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", n%20, len(body), body); err != nil {
							return
						}
					}
				}()
				<-s.Exited()
				<-written
				said := strings.TrimSpace(s.Said())
				qt.Check(t, qt.Equals(strings.Count(said, "\n"), 0), qt.Commentf("%s", said))
				qt.Check(t, qt.StringContains(said, "pool file lost: "+s.pool+" was "))
				// The next one finds nothing in its way.
				removeFile(t, s.pool)
				serveKind(t, l, kind, s.pool).stop()
			})
		}
	}
}
