package tests

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/go-quicktest/qt"
	"github.com/pastenet/paste/internal/netlab"
)

// ask does one request on an open connection.
func ask(c net.Conn, in *bufio.Reader, method, body string) (*http.Response, error) {
	if _, err := fmt.Fprintf(c, "%s / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", method, len(body), body); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return nil, fmt.Errorf("reply to %s: %w", method, err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

// All connections are open at the same time, and each is used several times.
func TestThousandsOfConnections(t *testing.T) {
	const conns = 3000
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t))
	open := make([]*net.TCPConn, conns)
	limit := make(chan struct{}, 64)
	parallel(t, conns, func(i int) (err error) {
		limit <- struct{}{}
		defer func() { <-limit }()
		open[i], err = tryDial(l, s.addr)
		return err
	})
	for round := range 3 {
		parallel(t, conns, func(i int) error {
			if open[i] == nil {
				return errors.New("not connected")
			}
			in := bufio.NewReader(open[i])
			for _, method := range []string{"GET", "POST"} {
				resp, err := ask(open[i], in, method, map[string]string{"POST": fmt.Sprint("body of ", i)}[method])
				if err != nil {
					return fmt.Errorf("round %d: %w", round, err)
				}
				if resp.StatusCode/100 != 2 {
					return fmt.Errorf("round %d: %s: %s", round, method, resp.Status)
				}
			}
			return nil
		})
	}
	qt.Check(t, qt.Equals(s.status(l).Stats.Conns, conns))
	for _, c := range open {
		if c != nil {
			c.Close()
		}
	}
	e := s.stop()
	qt.Check(t, qt.Equals(e.HTTP.Accepted, conns))
	qt.Check(t, qt.Equals(e.HTTP.Requests, 6*conns))
	qt.Check(t, qt.Equals(e.HTTP.Stored, 3*conns))
}

// Every request on a connection of its own, some of which nobody uses.
func TestConnectionChurn(t *testing.T) {
	const workers, each = 16, 150
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t))
	parallel(t, workers, func(w int) error {
		for i := range each {
			c, err := tryDial(l, s.addr)
			if err != nil {
				return err
			}
			if i%5 != 0 {
				resp, err := ask(c, bufio.NewReader(c), "POST", "x")
				if err != nil {
					return fmt.Errorf("worker %d, connection %d: %w", w, i, err)
				}
				if resp.StatusCode != http.StatusCreated {
					return errors.New(resp.Status)
				}
			}
			if i%2 == 0 {
				_ = c.SetLinger(0) // RST instead of FIN
			}
			c.Close()
		}
		return nil
	})
	e := s.stop()
	qt.Check(t, qt.Equals(e.HTTP.Stored, workers*each*4/5))
	qt.Check(t, qt.Equals(e.HTTP.Connections, 0))
}

// Beyond the limit clients are told, and those that are in don't notice.
func TestMaxConnections(t *testing.T) {
	const limit = 5
	l := newLab(t, netlab.Config{})
	s := serve(t, l, poolFile(t), "--max-connections", fmt.Sprint(limit))
	var in []*net.TCPConn
	var readers []*bufio.Reader
	check := func() {
		t.Helper()
		for i, c := range in {
			resp, err := ask(c, readers[i], "GET", "")
			qt.Assert(t, qt.IsNil(err))
			qt.Check(t, qt.Equals(resp.StatusCode, 200))
		}
	}
	for range limit {
		c := dial(t, l, s.addr)
		in, readers = append(in, c), append(readers, bufio.NewReader(c))
	}
	check()
	for range 3 {
		c := dial(t, l, s.addr)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		qt.Assert(t, qt.IsNil(err))
		qt.Check(t, qt.Equals(resp.StatusCode, http.StatusServiceUnavailable))
		c.Close()
	}
	check()
	qt.Check(t, qt.StringContains(s.Said(), "too many connections"))
	in[0].Close()
	in, readers = in[1:], readers[1:]
	// There is room again as soon as the server has seen the close.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := newClient(t, l)
	for get(client, s.url) != nil {
		qt.Assert(t, qt.IsNil(ctx.Err()))
		time.Sleep(10 * time.Millisecond)
	}
	check()
	rejected := s.stop().HTTP.Rejected
	qt.Check(t, qt.IsTrue(rejected >= 3), qt.Commentf("%d", rejected))
}
