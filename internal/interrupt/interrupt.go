// Package interrupt ends a program's work when it is told to by a signal.
package interrupt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// ErrInterrupted says that work was given up because of a signal. It is a
// context.Canceled.
var ErrInterrupted error = interrupted{}

type interrupted struct{}

func (interrupted) Error() string        { return "interrupted" }
func (interrupted) Is(target error) bool { return target == context.Canceled }

// Context returns a copy of parent that is done at the first SIGINT, SIGTERM or
// SIGHUP; its cause then says which, and is an ErrInterrupted. The next SIGINT
// or SIGTERM ends the process at once. A SIGHUP that the process was started to
// ignore, as by nohup(1), stays ignored. stop ends all that.
func Context(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, signals...)
	go func() {
		select {
		case sig := <-ch:
			// Not SIGHUP: the end of a terminal may bring it more than once.
			signal.Reset(syscall.SIGINT, syscall.SIGTERM)
			cancel(fmt.Errorf("%w by %s", ErrInterrupted, names[sig]))
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(ch)
		cancel(nil)
	}
}

var names = map[os.Signal]string{syscall.SIGINT: "SIGINT", syscall.SIGTERM: "SIGTERM", syscall.SIGHUP: "SIGHUP"}

// Cause is why ctx is done: an ErrInterrupted, whoever cancelled it.
func Cause(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) && !errors.Is(err, ErrInterrupted) {
		return ErrInterrupted
	}
	return err
}

// Wait runs do in a goroutine and returns what it returns. If ctx is done
// first, Wait returns at once with its Cause; do goes on, and what it makes
// after all is given to drop.
func Wait[T any](ctx context.Context, do func() (T, error), drop func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	results := make(chan result, 1)
	go func() {
		var r result
		r.value, r.err = do()
		results <- r
	}()
	select {
	case r := <-results:
		return r.value, r.err
	case <-ctx.Done():
	}
	go func() {
		if r := <-results; r.err == nil {
			drop(r.value)
		}
	}()
	var none T
	return none, Cause(ctx)
}
