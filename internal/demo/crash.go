package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pastenet/paste/internal/childproc"
	"github.com/pastenet/paste/internal/loadgen"
	"github.com/pastenet/paste/pmem"
)

// runID marks the bodies of the load.
const runID = 0x9a57e

// book is the client's list of what it was told is stored: for each connection
// the numbers of its acknowledged requests.
type book [][]uint64

// load is a load generator under way.
type load struct {
	live   loadgen.Live
	book   book
	cancel context.CancelFunc
	done   chan struct{}
	res    *loadgen.Result // once done is closed
	err    error
}

func (d *demo) load(ctx context.Context) *load {
	l := &load{book: make(book, d.Connections), done: make(chan struct{})}
	ctx, l.cancel = context.WithCancel(ctx)
	cfg := loadgen.Config{
		Addr: d.addr, Workload: loadgen.WAL, Connections: d.Connections, Size: bodySize,
		Duration: time.Hour, // cancel ends it
		CPU:      -1, Reconnect: true, Run: runID, Live: &l.live,
		OnAck: func(conn int, n uint64) { l.book[conn] = append(l.book[conn], n) },
	}
	if d.cpus != nil {
		cfg.CPU = d.cpus[1]
	}
	go func() {
		defer close(l.done)
		l.err = d.lab.InClient(func() (err error) {
			l.res, err = loadgen.Run(ctx, cfg)
			return err
		})
	}()
	return l
}

// stop ends the load; the book is the caller's then. It may be called twice.
func (l *load) stop() error {
	l.cancel()
	<-l.done
	if l.err == nil && l.res == nil {
		l.err = errors.New("load generator: no result")
	}
	return l.err
}

// crash loads the server, kills it in the middle of that, starts another one on
// the same pool, and goes on loading. It returns the server that runs now.
func (d *demo) crash(ctx context.Context, srv *server) (book, *server, error) {
	d.title(fmt.Sprintf("Load: %d connections, POST of %d bytes; kill -9 in the middle of it", d.Connections, bodySize))
	l := d.load(ctx)
	defer l.stop()
	room := uint64(d.poolSize / frameSize)
	if err := d.watch(ctx, l, l.live.Requests.Load(), room*2/5); err != nil {
		return nil, srv, err
	}
	killed := time.Now()
	srv.kill()
	// What was acknowledged up to now, give or take what the client has not read.
	d.sum.BeforeKill = l.live.Requests.Load()
	d.say("kill -9 %d, after %d acknowledged writes", srv.PID(), d.sum.BeforeKill)
	srv, err := d.start(ctx)
	if err != nil {
		return nil, nil, err
	}
	back := time.Since(killed)
	d.sum.RestartMS = back.Milliseconds()
	d.say("started again: ready %d ms after the kill, nothing to clean up, %d records found", d.sum.RestartMS, srv.ready.Records)
	if err := d.watch(ctx, l, d.sum.BeforeKill, room*2/5); err != nil {
		return nil, srv, err
	}
	if err := l.stop(); err != nil {
		return nil, srv, err
	}
	d.sum.Acknowledged = l.res.Acked
	d.sum.AfterRestart = l.res.Acked - d.sum.BeforeKill
	d.sum.Refused = l.res.Non2xx
	d.say("the clients have connected again: %d more acknowledged", d.sum.AfterRestart)
	if d.sum.AfterRestart == 0 {
		return nil, srv, errors.New("the restarted server acknowledged nothing")
	}
	return l.book, srv, nil
}

// watch shows the load for LoadTime, or until limit writes are acknowledged
// beyond from, so that the pool does not fill up.
func (d *demo) watch(ctx context.Context, l *load, from, limit uint64) error {
	defer d.Live("")
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	start, last, lastAt := time.Now(), from, time.Now()
	var since time.Time // when the first write was acknowledged
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.done:
			return errors.Join(errors.New("the load ended early"), l.err)
		case now := <-ticker.C:
			acked := l.live.Requests.Load()
			d.Live(fmt.Sprintf("%4.1f s  %8d writes acknowledged  %7.0f/s  %d connections", now.Sub(start).Seconds(),
				acked, float64(acked-last)/now.Sub(lastAt).Seconds(), l.live.Connected.Load()))
			last, lastAt = acked, now
			if since.IsZero() && acked > from {
				since = now
			}
			if !since.IsZero() && now.Sub(since) >= d.LoadTime || acked-from >= limit {
				return nil
			}
			if since.IsZero() && now.Sub(start) > childproc.Patience {
				return fmt.Errorf("no write was acknowledged in %v", childproc.Patience)
			}
		}
	}
}

// verify reads the log and looks up every write that the client has in its
// book.
func (d *demo) verify(acked book) (err error) {
	d.title("What is in the log?")
	pool, err := pmem.Open(d.pool, pmem.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	found := make([]map[uint64]bool, len(acked))
	for i := range found {
		found[i] = make(map[uint64]bool, len(acked[i]))
	}
	var records uint64
	body := make([]byte, 0, 2*bodySize)
	for rec, err := range pool.Log().Records() {
		if err != nil {
			return err
		}
		if rec.Length != bodySize {
			continue // curl's
		}
		records++
		body = body[:0]
		for i := range rec.Fragments {
			body = append(body, rec.Payload(i)...)
		}
		run, conn, n, parseErr := loadgen.ParseBody(body)
		if rec.Verify() != nil || parseErr != nil || run != runID || conn >= len(found) {
			d.sum.Damaged++
			continue
		}
		found[conn][n] = true
	}
	var distinct uint64
	for conn, numbers := range acked {
		for _, n := range numbers {
			if found[conn][n] {
				d.sum.Found++
			}
		}
		distinct += uint64(len(found[conn]))
	}
	d.sum.Unacknowledged = distinct - d.sum.Found
	d.say("%d writes were acknowledged, %d of them are in the log, byte for byte as sent", d.sum.Acknowledged, d.sum.Found)
	d.say("%d more were stored when the kill came, or the load ended, before their answer; %d records are damaged", d.sum.Unacknowledged, d.sum.Damaged)
	return nil
}
