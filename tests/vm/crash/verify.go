package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pastenet/paste/internal/loadgen"
	"github.com/pastenet/paste/pmem"
)

// request names one write of the load.
type request struct {
	conn int
	n    uint64
}

// verify opens each pool for writing, as a server would, and looks up
// everything that the book says was acknowledged.
func verify(pools []pair, book string) error {
	acked, err := readBook(book)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range pools {
		if err := verifyPool(p, acked[p.name]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	return errors.Join(errs...)
}

func readBook(name string) (map[string]map[request]bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	acked := map[string]map[request]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var target string
		var r request
		if _, err := fmt.Fscan(strings.NewReader(lines.Text()), &target, &r.conn, &r.n); err != nil {
			return nil, fmt.Errorf("book: %q: %w", lines.Text(), err)
		}
		if acked[target] == nil {
			acked[target] = map[request]bool{}
		}
		acked[target][r] = true
	}
	return acked, lines.Err()
}

// openRecords opens a pool and calls fn with each record of its log and what it holds,
// which is valid within the call.
func openRecords(place string, fn func(rec pmem.Record, body []byte)) (*pmem.Pool, error) {
	pool, err := pmem.Open(place, pmem.Options{})
	if err != nil {
		return nil, err
	}
	var body bytes.Buffer
	for rec, err := range pool.Log().Records() {
		if err == nil {
			body.Reset()
			_, err = rec.WriteTo(&body)
		}
		if err != nil {
			return nil, errors.Join(err, pool.Close())
		}
		fn(rec, body.Bytes())
	}
	return pool, nil
}

func verifyPool(place pair, acked map[request]bool) (err error) {
	var damaged, more, found int
	var uploaded bool
	pool, err := openRecords(place.value, func(rec pmem.Record, body []byte) {
		if rec.Verify() != nil {
			damaged++
			return
		}
		if rec.Seq == 1 {
			uploaded = bytes.Equal(body, upload())
			return
		}
		run, conn, n, err := loadgen.ParseBody(body)
		switch {
		case err != nil || run != runID || len(body) != bodySize:
			damaged++
		case acked[request{conn, n}]:
			delete(acked, request{conn, n}) // so that one found twice does not count twice
			found++
		default:
			more++
		}
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	lost := len(acked)
	fmt.Printf("%s: %v, %d writes acknowledged, %d found, %d stored and not acknowledged, %d damaged, upload intact: %v\n",
		place.name, pool.Backing(), found+lost, found, more, damaged, uploaded)
	if found == 0 || lost > 0 || damaged > 0 || !uploaded {
		return errors.New("not what was acknowledged")
	}
	// And it goes on.
	if _, err := pool.Log().AppendCopy([]byte("after the crash")); err != nil {
		return err
	}
	return pool.Log().Commit()
}
