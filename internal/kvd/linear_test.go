package kvd

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/servertest"
)

// The keys of a history are in pairs that a batch changes together, so a pair is what
// has a state: two values, empty where there is none.
type pair [2]string

// op is a request of a history.
type op struct {
	pair, i int    // which key
	kind    string // PUT, GET, DELETE, NEW (If-None-Match: *), SWAP (If-Match of what was read), BATCH
	value   string
	old     string // of SWAP
}

// model is what a pair can go through. An answer is a status, of a GET with the value
// behind it; nil if none came.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[int][]porcupine.Operation{}
		for _, h := range history {
			by[h.Input.(op).pair] = append(by[h.Input.(op).pair], h)
		}
		return slices.Collect(maps.Values(by))
	},
	Init: func() any { return pair{} },
	Step: func(state, input, output any) (bool, any) {
		s, in := state.(pair), input.(op)
		was := s[in.i]
		there := was != ""
		want := 200
		switch in.kind {
		case "PUT":
			if want = 204; !there {
				want = 201
			}
			s[in.i] = in.value
		case "GET":
			return output == nil || output == any(fmt.Sprint(200, was)) && there || output == any("404") && !there, state
		case "DELETE":
			if want = 204; !there {
				want = 404
			}
			s[in.i] = ""
		case "NEW":
			if want = 201; there {
				want = 412
			} else {
				s[in.i] = in.value
			}
		case "SWAP":
			if want = 204; was != in.old {
				want = 412
			} else {
				s[in.i] = in.value
			}
		case "BATCH":
			want, s = 204, pair{in.value, in.value}
		}
		return output == nil || output == any(strconv.Itoa(want)), s
	},
}

// fresh is a value that was never used, of one of several sizes.
func (c *client) fresh() string {
	return fmt.Sprint(c.next.Add(1), " ", strings.Repeat("v", []int{0, 100, 500, 5000}[c.rng.IntN(4)]))
}

// ask sends a request once, and returns status and body.
func ask(c *http.Client, addr, method, path, body string, fields ...string) (string, http.Header, error) {
	req, err := http.NewRequest(method, "http://"+addr+path, io.NopCloser(strings.NewReader(body))) // without a body to send again
	if err != nil {
		return "", nil, err
	}
	req.ContentLength = int64(len(body))
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", nil, err
	}
	out := strconv.Itoa(resp.StatusCode)
	if method == "GET" && resp.StatusCode == 200 {
		out += string(b)
	}
	return out, resp.Header, nil
}

// client is one of those who make a history.
type client struct {
	*servertest.History
	next *atomic.Int64 // number of a value
	id   int
	addr string
	http *http.Client
	rng  *rand.Rand
	tags map[string][2]string // by path: tag and value that were read last
}

// one sends a request, and reports whether an answer came.
func (c *client) one() bool {
	in := op{pair: c.rng.IntN(4), i: c.rng.IntN(2)}
	in.kind = []string{"PUT", "PUT", "GET", "GET", "GET", "DELETE", "NEW", "SWAP", "BATCH"}[c.rng.IntN(9)]
	path := fmt.Sprintf("/k/%d-%d", in.pair, in.i)
	method, body, fields := in.kind, "", []string(nil)
	if in.kind != "GET" && in.kind != "DELETE" {
		in.value = c.fresh()
		method, body = "PUT", in.value
	}
	seen, ok := c.tags[path]
	switch {
	case in.kind == "NEW":
		fields = []string{"If-None-Match", "*"}
	case in.kind == "SWAP" && ok:
		in.old, fields = seen[1], []string{"If-Match", seen[0]}
	case in.kind == "SWAP":
		in.kind = "PUT"
	case in.kind == "BATCH":
		method, path = "POST", "/k"
		body = fmt.Sprintf(`{"put":"%d-0","text":%q}{"put":"%d-1","text":%q}`, in.pair, in.value, in.pair, in.value)
	}
	if in.kind == "PUT" && c.rng.IntN(2) == 0 {
		fields = []string{"Content-Type", "text/plain"}
	}
	call := time.Now()
	out, header, err := ask(c.http, c.addr, method, path, body, fields...)
	back := time.Now()
	if err != nil {
		c.Add(c.id, in, nil, call, back)
		return false
	}
	if value, is := strings.CutPrefix(out, "200"); is {
		c.tags[path] = [2]string{header.Get("ETag"), value}
	}
	c.Add(c.id, in, out, call, back)
	return true
}

// live has clients work with a server that is killed again and again, and returns
// their history.
func live(t *testing.T, rounds int, env ...string) *servertest.History {
	pool := servertest.PoolFile(t)
	p := servertest.Start(t, pool, "127.0.0.1:0", env...)
	h, next := servertest.NewHistory(), new(atomic.Int64)
	const clients, each = 5, 40
	tags := make([]map[string][2]string, clients)
	for round := range rounds {
		var wg sync.WaitGroup
		var half sync.WaitGroup
		half.Add(clients)
		for i := range clients {
			if tags[i] == nil {
				tags[i] = map[string][2]string{}
			}
			tr := &http.Transport{}
			c := &client{h, next, 1000*round + i, p.Addr, &http.Client{Transport: tr, Timeout: 3 * time.Minute}, rand.New(rand.NewPCG(uint64(round), uint64(i))), tags[i]}
			wg.Add(1)
			go func() {
				defer wg.Done()
				defer tr.CloseIdleConnections()
				worked := sync.OnceFunc(half.Done)
				defer worked()
				for n := 0; c.one(); n++ {
					if n == each {
						worked()
					}
					time.Sleep(time.Duration(c.rng.IntN(1000)) * time.Microsecond)
				}
			}()
		}
		half.Wait() // then the kill comes while they work
		p.Kill()
		wg.Wait()
		p = servertest.Start(t, pool, p.Addr, env...)
	}
	// What is there in the end was there all the time.
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	for n := range 8 {
		in := op{pair: n / 2, i: n % 2, kind: "GET"}
		call := time.Now()
		out, _, err := ask(&http.Client{Transport: tr}, p.Addr, "GET", fmt.Sprintf("/k/%d-%d", in.pair, in.i), "")
		qt.Assert(t, qt.IsNil(err))
		h.Add(0, in, out, call, time.Now())
	}
	p.Kill()
	return h
}

// TestLinearizable: a history of clients of a server that is killed and started again
// is one of requests served one after the other, batches as a whole.
func TestLinearizable(t *testing.T) { live(t, 5).Check(t, model, porcupine.Ok) }

// TestLostWriteIsFound: the check finds a server that acknowledges what it does not
// store.
func TestLostWriteIsFound(t *testing.T) {
	live(t, 2, servertest.Lose).Check(t, model, porcupine.Illegal)
}
