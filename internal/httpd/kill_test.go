package httpd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/servertest"
	"github.com/pastenet/paste/pasteapi"
)

// child is a server in a process of its own, which can be killed. It drops what is
// acknowledged.
func child(c *servertest.Child) error {
	srv, err := New(Config{Addr: c.Addr, Logger: c.Log, Rings: 2, Retain: Retention{Read: true}}, c.Pool)
	if err != nil {
		return err
	}
	return c.Run(srv.Addr(), func(ctx context.Context, a, b *pasteapi.Ring) error { return srv.Run(ctx, a, b) })
}

// outside is a client of a server in another process.
type outside struct {
	base string
	c    *http.Client
}

// try sends a request until it is answered, however often the server is killed.
func (o *outside) try(method, path, body string, fields ...string) (status int, out string) {
	for {
		req, err := http.NewRequest(method, o.base+path, strings.NewReader(body))
		if err != nil {
			return 0, err.Error()
		}
		for i := 0; i < len(fields); i += 2 {
			req.Header.Set(fields[i], fields[i+1])
		}
		resp, err := o.c.Do(req)
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil {
			return resp.StatusCode, string(b)
		}
	}
}

// posts stores bodies, each with a key of its own, and returns the answers. It counts
// them, and goes on until it is told to stop.
func (o *outside) posts(id int, stop <-chan struct{}, count *atomic.Int64) (told map[string]string, err error) {
	told = map[string]string{}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return told, nil
		default:
		}
		body := fmt.Sprintf("%d-%d %s", id, i, strings.Repeat("b", i%5*700))
		status, out := o.try("POST", "/", body, "Idempotency-Key", fmt.Sprintf("%d-%d", id, i))
		if status != 201 {
			return nil, fmt.Errorf("POST: %d %s", status, out)
		}
		told[strings.TrimSpace(out)] = body
		count.Add(1)
	}
}

// consume reads a cursor's records and acknowledges them, until it has seen as many
// as there are in the end.
func (o *outside) consume(stop <-chan struct{}, count *atomic.Int64) (seen map[string]string, err error) {
	seen = map[string]string{}
	next := uint64(1)
	stopped := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	for !stopped() || int64(len(seen)) < count.Load() {
		status, out := o.try("GET", "/log/cursors/c/records?max=7&wait=0.05&format=ndjson", "")
		if status != 200 {
			return nil, fmt.Errorf("read: %d %s", status, out)
		}
		for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
			var r struct {
				Seq  uint64
				Data []byte
			}
			if line == "" {
				continue
			}
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				return nil, err
			}
			if r.Seq > next {
				return nil, fmt.Errorf("record %d comes where %d is due", r.Seq, next)
			}
			next = max(next, r.Seq+1)
			seen[strconv.FormatUint(r.Seq, 10)] = string(r.Data)
		}
		if status, out := o.try("POST", fmt.Sprint("/log/cursors/c?ack=", next-1), ""); status != 200 {
			return nil, fmt.Errorf("acknowledge: %d %s", status, out)
		}
	}
	return seen, nil
}

// TestKill kills the server again and again while clients post, and a reader
// acknowledges what the server then drops. Each body is stored once, as its answer
// says, and the reader has seen all of them in their order.
func TestKill(t *testing.T) {
	pool := servertest.PoolFile(t)
	p := servertest.Start(t, pool, "127.0.0.1:0")
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	o := &outside{"http://" + p.Addr, &http.Client{Transport: tr}}
	status, _ := o.try("PUT", "/log/cursors/c", "")
	qt.Assert(t, qt.Equals(status, 201))

	const clients, kills = 4, 8
	var count atomic.Int64
	var posting sync.WaitGroup
	stop, stopReading, ends := make(chan struct{}), make(chan struct{}), make(chan error, clients+1)
	all := make([]map[string]string, clients)
	for id := range clients {
		posting.Add(1)
		go func() {
			defer posting.Done()
			var err error
			all[id], err = o.posts(id, stop, &count)
			ends <- err
		}()
	}
	var seen map[string]string
	go func() {
		var err error
		seen, err = o.consume(stopReading, &count)
		ends <- err
	}()
	for range kills {
		from := count.Load()
		eventually(t, "the clients get on", func() bool { return count.Load() > from+30 })
		p.Kill() // while they work
		p = servertest.Start(t, pool, p.Addr)
	}
	close(stop)
	posting.Wait()
	close(stopReading)
	told := map[string]string{}
	for range clients + 1 {
		qt.Assert(t, qt.IsNil(<-ends))
	}
	for _, mine := range all {
		for seq, body := range mine {
			qt.Assert(t, qt.Equals(told[seq], ""), qt.Commentf("record %s is said to have two bodies", seq))
			told[seq] = body
		}
	}
	qt.Check(t, qt.DeepEquals(seen, told))
	_, out := o.try("GET", "/log/cursors/c", "")
	qt.Check(t, qt.Equals(out, fmt.Sprintf("{\"name\":\"c\",\"next\":%d,\"behind\":0,\"lost\":0,\"protects\":true}\n", len(told)+1)))
	p.Kill()
}
