package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pastenet/paste/internal/loadgen"
)

const (
	connections = 4
	bodySize    = 1024
	uploadSize  = 2 << 20
	runID       = 0xcafe
	limit       = 15 * time.Minute // an emulated machine is slow, and may stand still
)

// upload is the first record of every pool, too large for one batch.
func upload() []byte {
	b := make([]byte, uploadSize)
	rng := rand.New(rand.NewPCG(runID, 0))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// target is a server under load.
type target struct {
	pair
	acked atomic.Uint64
	book  [connections][]uint64 // numbers of the requests that were acknowledged
	err   error
}

// load loads all servers, kills the process when each has acknowledged acks
// writes, and writes the book.
func load(servers []pair, book string, pid int, acks uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var targets []*target
	for _, s := range servers {
		t := &target{pair: s}
		if err := t.upload(ctx); err != nil {
			return fmt.Errorf("%s: upload: %w", t.name, err)
		}
		fmt.Printf("%s: %d bytes stored as record 1\n", t.name, uploadSize)
		targets = append(targets, t)
	}
	var running sync.WaitGroup
	for _, t := range targets {
		running.Add(1)
		go func() {
			defer running.Done()
			t.err = t.run(ctx)
		}()
	}
	ended := make(chan struct{})
	go func() { running.Wait(); close(ended) }()
	if err := wait(targets, acks, ended); err != nil {
		cancel()
		<-ended
		for _, t := range targets {
			err = errors.Join(err, t.err)
		}
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill the machine, process %d: %w", pid, err)
	}
	<-ended // the connections break
	f, err := os.Create(book)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for _, t := range targets {
		fmt.Printf("%s: %d writes acknowledged\n", t.name, t.acked.Load())
		for conn, numbers := range t.book {
			for _, n := range numbers {
				fmt.Fprintln(w, t.name, conn, n)
			}
		}
	}
	return errors.Join(w.Flush(), f.Close())
}

// wait returns when each target has acknowledged enough.
func wait(targets []*target, acks uint64, ended <-chan struct{}) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		enough := true
		for _, t := range targets {
			enough = enough && t.acked.Load() >= acks
		}
		if enough {
			return nil
		}
		select {
		case <-ended:
			return errors.New("the load ended before the machine was killed")
		case <-tick.C:
		}
	}
}

func (t *target) upload(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+t.value+"/", bytes.NewReader(upload()))
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if seq := resp.Header.Get("X-Paste-Seq"); resp.StatusCode != http.StatusCreated || seq != "1" {
		return fmt.Errorf("answered with %s, record %s", resp.Status, seq)
	}
	return nil
}

// run loads until a connection breaks, which is what is expected.
func (t *target) run(ctx context.Context) error {
	addr, err := netip.ParseAddrPort(t.value)
	if err != nil {
		return err
	}
	_, err = loadgen.Run(ctx, loadgen.Config{
		Addr: addr, Workload: loadgen.WAL, Connections: connections, Size: bodySize,
		Duration: limit, CPU: -1, Engine: loadgen.Epoll, Run: runID,
		OnAck: func(conn int, n uint64) {
			t.book[conn] = append(t.book[conn], n)
			t.acked.Add(1)
		},
	})
	return err
}
