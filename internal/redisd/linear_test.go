package redisd

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/servertest"
)

// op is a command of a history; out is nothing if no answer came.
type op struct{ name, kind, value string }

// model is what one name can go through: SET, GET, GETDEL, INCR and SET NX.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[string][]porcupine.Operation{}
		for _, h := range history {
			by[h.Input.(op).name] = append(by[h.Input.(op).name], h)
		}
		var parts [][]porcupine.Operation
		for _, p := range by {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		was, in := state.(string), input.(op)
		want, next := "OK", in.value
		switch in.kind {
		case "GET":
			want, next = was, was
		case "GETDEL":
			want, next = was, ""
		case "INCR":
			n, err := strconv.Atoi(was)
			if was != "" && err != nil {
				want, next = "error", was
				break
			}
			next = strconv.Itoa(n + 1)
			want = next
		case "NX":
			if was != "" {
				want, next = "", was
			}
		}
		return output == nil || output == any(want), next
	},
}

// work gives commands until the connection ends.
func work(h *servertest.History, c *client, id *int, rng *rand.Rand, stop <-chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		in := op{name: fmt.Sprint("k", rng.IntN(6)), kind: []string{"SET", "SET", "GET", "GET", "INCR", "NX", "GETDEL"}[rng.IntN(7)]}
		args := []string{in.kind, in.name}
		switch in.kind {
		case "SET":
			in.value = strconv.Itoa(rng.IntN(1 << 40))
			args = append(args, in.value)
		case "NX":
			in.value = strconv.Itoa(rng.IntN(1 << 40))
			args = []string{"SET", in.name, in.value, "NX"}
		}
		call := time.Now()
		_, err := c.Write([]byte(request(args...)))
		var out any
		if err == nil {
			out, err = c.readValue()
		}
		back := time.Now()
		if err != nil {
			h.Add(*id, in, nil, call, back)
			*id += 1000 // a client has one command under way, and this one is for ever
			return
		}
		switch v := out.(type) {
		case null:
			out = ""
		case int64:
			out = strconv.FormatInt(v, 10)
		case status:
			out = string(v)
		case failure:
			out = "error"
		}
		h.Add(*id, in, out, call, back)
		time.Sleep(time.Duration(rng.IntN(1500)) * time.Microsecond)
	}
}

// live has clients work with a server that is killed again and again, and returns
// their history.
func live(t *testing.T, rounds int, env ...string) *servertest.History {
	pool := servertest.PoolFile(t)
	p := servertest.Start(t, pool, "127.0.0.1:0", env...)
	h := servertest.NewHistory()
	ids := []int{0, 1, 2, 3, 4}
	for round := range rounds {
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for i := range ids {
			c := dial(t, p.Addr)
			rng := rand.New(rand.NewPCG(uint64(round), uint64(i)))
			wg.Add(1)
			go func() {
				defer wg.Done()
				work(h, c, &ids[i], rng, stop)
			}()
		}
		time.Sleep(150 * time.Millisecond)
		p.Kill()
		close(stop)
		wg.Wait()
		p = servertest.Start(t, pool, p.Addr, env...)
	}
	// What is there in the end was there all the time.
	c := dial(t, p.Addr)
	for i := range 6 {
		in := op{name: fmt.Sprint("k", i), kind: "GET"}
		call := time.Now()
		out := c.do("GET", in.name)
		if _, none := out.(null); none {
			out = ""
		}
		h.Add(ids[0], in, out, call, time.Now())
	}
	p.Kill()
	return h
}

// TestLinearizable: a history of clients of a server that is killed and started
// again is one of commands done one after the other.
func TestLinearizable(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 4
	}
	h := live(t, rounds)
	qt.Assert(t, qt.IsTrue(h.Len() > 50*rounds), qt.Commentf("%d commands", h.Len()))
	h.Check(t, model, porcupine.Ok)
}

// TestLostWriteIsFound: the check finds a server that acknowledges what it does not
// store.
func TestLostWriteIsFound(t *testing.T) {
	live(t, 3, servertest.Lose).Check(t, model, porcupine.Illegal)
}
