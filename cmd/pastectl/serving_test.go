package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/pastenet/paste/internal/serve"
)

// serving runs a serve command, and returns what it prints and how it ends. What it
// prints is read whether the test looks at it or not, to the last byte: a pipe has no
// room, and a decoder need not read the end of the line of a value that it returns.
func serving(ctx context.Context, t *testing.T, args ...string) (events <-chan serve.Event, done <-chan error) {
	r, w := io.Pipe()
	end := make(chan error, 1)
	go func() {
		err := serveCommand(ctx, w, append(args, "--json")...)
		w.CloseWithError(io.EOF)
		end <- err
	}()
	said := make(chan serve.Event, 1000)
	go func() {
		defer close(said)
		lines := json.NewDecoder(r)
		for {
			var e serve.Event
			if err := lines.Decode(&e); err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("what the server prints: %v", err)
				}
				_, _ = io.Copy(io.Discard, r)
				return
			}
			said <- e
		}
	}()
	return said, end
}

// next is the next event; a server that has ended without it fails the test.
func next(t *testing.T, events <-chan serve.Event) serve.Event {
	t.Helper()
	e, ok := <-events
	qt.Assert(t, qt.IsTrue(ok), qt.Commentf("the server has ended"))
	return e
}
