package netlab

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawner is a thread that starts the commands of one namespace. The kernel
// sends a child its parent-death signal when the *thread* that forked it ends,
// so that thread must live as long as the namespace.
type spawner struct {
	nsfd int
	once sync.Once
	jobs chan func()
	done chan struct{}

	mu      sync.Mutex
	started []*exec.Cmd
	closed  bool
}

func newSpawner(nsfd int) *spawner {
	return &spawner{nsfd: nsfd, jobs: make(chan func()), done: make(chan struct{})}
}

func (s *spawner) run() {
	defer close(s.done)
	runtime.LockOSThread() // never unlocked: the thread ends with us
	for job := range s.jobs {
		job()
	}
}

// start starts cmd, on a CPU of its own if cpu is not nil.
func (s *spawner) start(cmd *exec.Cmd, cpu *int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return context.Canceled
	}
	s.once.Do(func() { go s.run() })
	result := make(chan error, 1)
	s.jobs <- func() {
		if err := setns(s.nsfd); err != nil {
			result <- err
			return
		}
		result <- startOn(cmd, cpu)
	}
	err := <-result
	if err == nil {
		s.started = append(s.started, cmd)
	}
	return err
}

// startOn lets cmd inherit the calling thread's affinity: a Go program sizes its
// runtime by the CPUs that it may use when it begins.
func startOn(cmd *exec.Cmd, cpu *int) error {
	if cpu == nil {
		return cmd.Start()
	}
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("read CPU affinity: %w", err)
	}
	one.Set(*cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("bind to CPU %d: %w", *cpu, err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &before) }() // it was legal a moment ago
	return cmd.Start()
}

func (s *spawner) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	for _, c := range s.started {
		_ = c.Process.Kill() // an error if it was waited for: gone already
	}
	s.once.Do(func() { close(s.done) })
	close(s.jobs)
	<-s.done
}

// Cmd is a command that runs in a namespace. Use its own Start, Run, Output and
// CombinedOutput; everything else is exec.Cmd's.
type Cmd struct {
	*exec.Cmd
	ns  *Netns
	cpu *int
}

// Command prepares a command that runs in the namespace and is killed when ctx
// ends, when the lab is closed, or when this process dies, however it dies. The
// caller may change the embedded exec.Cmd before starting it.
func (n *Netns) Command(ctx context.Context, name string, args ...string) *Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return &Cmd{Cmd: c, ns: n}
}

// OnCPU binds the command to one CPU. It is called before the command starts,
// and returns c.
func (c *Cmd) OnCPU(cpu int) *Cmd {
	c.cpu = &cpu
	return c
}

// Start is exec.Cmd.Start in the namespace.
func (c *Cmd) Start() error { return c.ns.spawn.start(c.Cmd, c.cpu) }

// Run is exec.Cmd.Run in the namespace.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output is Run that returns standard output.
func (c *Cmd) Output() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput is Run that returns standard output and standard error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}
