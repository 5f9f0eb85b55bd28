// Package childproc starts a child process, watches it, and ends it. The child
// says on its standard output, in lines, what a program wants to know, and on
// its standard error what goes into a message when it fails.
package childproc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pastenet/paste/internal/netlab"
	"golang.org/x/sys/unix"
)

// Patience bounds every wait for a child. It is for one that hangs, not for one
// that is slow, nor for a virtual machine that its host stops for a minute.
const Patience = 3 * time.Minute

// queued is how many lines wait for a reader. Of more, the oldest are forgotten: a
// child must not stand still because nobody wants to know what it says.
const queued = 64

// Process is a child that was started. Its methods may be called from several
// goroutines.
type Process struct {
	cmd    *netlab.Cmd
	stdout lineWriter
	stderr Tail
	exited chan struct{}
	err    error // of Wait, once exited is closed
}

// Start starts cmd, whose output belongs to the Process from then on. It dies with
// its namespace's lab and with this process, see [netlab.Netns.Command].
func Start(cmd *netlab.Cmd) (*Process, error) {
	p := &Process{cmd: cmd, stdout: lineWriter{lines: make(chan []byte, queued)}, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &p.stdout, &p.stderr, Patience
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	go func() {
		p.err = cmd.Wait() // it has read all output
		p.stdout.close()
		close(p.exited)
	}()
	return p, nil
}

// PID is the child's process number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Lines are those of the standard output that [Process.Await] has not taken, without
// their ends; the channel is closed when the child has ended.
func (p *Process) Lines() <-chan []byte { return p.stdout.lines }

// Await takes lines of the standard output until accept reports true of one. what
// completes "the server was not …". It is an error if the child ends, or
// [Patience] does.
func (p *Process) Await(what string, accept func(line []byte) bool) error {
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	for {
		select {
		case line, ok := <-p.stdout.lines:
			if !ok {
				<-p.exited
				return p.Explain(fmt.Errorf("the server ended before it was %s: %s", what, p.cmd.ProcessState))
			}
			if accept(line) {
				return nil
			}
		case <-timeout.C:
			return p.Explain(fmt.Errorf("the server was not %s after %v", what, Patience))
		}
	}
}

// Exited is closed when the child is gone.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Running reports whether the child is there.
func (p *Process) Running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Said is the end of what the child has written to its standard error.
func (p *Process) Said() string { return p.stderr.String() }

// Explain adds to an error what the child has said.
func (p *Process) Explain(err error) error { return p.stderr.Explain(err) }

// Signal sends a signal.
func (p *Process) Signal(sig unix.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return p.Explain(fmt.Errorf("send %s to the server: %w", unix.SignalName(sig), err))
	}
	return nil
}

// Stop asks the child to end, by SIGTERM, also when it is stopped, and waits for
// that. One that does not end is killed, which is an error, as is that it failed.
func (p *Process) Stop() error {
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGCONT} {
		if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	select {
	case <-p.exited:
	case <-timeout.C:
		p.Kill()
		return p.Explain(fmt.Errorf("the server did not end within %v", Patience))
	}
	if p.err != nil {
		return p.Explain(fmt.Errorf("the server failed: %w", p.err))
	}
	return nil
}

// Kill is kill -9. It may be called at any time, also of nil, and returns when the
// child is gone.
func (p *Process) Kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill() // an error when it is gone
	<-p.exited
}

// maxLine bounds what is kept of a line, in bytes.
const maxLine = 1 << 20

// lineWriter cuts what is written to it into lines.
type lineWriter struct {
	lines chan []byte
	part  []byte
}

func (w *lineWriter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		line, more, whole := bytes.Cut(rest, []byte("\n"))
		w.part = append(w.part, line[:min(len(line), maxLine-len(w.part))]...)
		if whole {
			w.push()
		}
		rest = more
	}
	return len(b), nil
}

// push hands over the line that is complete. There is one writer, so that a place
// made free stays free.
func (w *lineWriter) push() {
	line := w.part
	w.part = nil
	select {
	case w.lines <- line:
		return
	default:
	}
	select {
	case <-w.lines:
	default:
	}
	w.lines <- line
}

func (w *lineWriter) close() {
	if len(w.part) > 0 {
		w.push()
	}
	close(w.lines)
}
