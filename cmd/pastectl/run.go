package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/pastenet/paste/internal/netmapdev"
	"github.com/pastenet/paste/pasteapi"
	"github.com/spf13/cobra"
)

// runOptions are the flags of run.
type runOptions struct {
	lib       string
	pool      string
	poolSize  sizeFlag
	frameSize int
	receive   pasteapi.ReceiveMode
	verbose   bool
}

func newRunCmd(e env) *cobra.Command {
	o := &runOptions{}
	cmd := &cobra.Command{
		Use:   "run [flags] -- PROGRAM [ARGUMENT...]",
		Short: "Run a C program that was written for netmap or PASTE",
		Long: `Run a program that was written for the netmap or PASTE kernel module, as it is:
what it does to /dev/netmap is served by PASTE, in the process, by a library
(libpaste-netmap.so) that the dynamic linker loads before the C library. Other
files and sockets are not touched.

The program keeps its standard streams, its signals and its process ID. It needs
what PASTE needs: root, or the capabilities that README.md names.

Ports share a memory of 128 MiB of buffers unless they ask for another one. With
--pool that is in a file, which pastectl pool reads.

The library is looked for next to pastectl, and in ../lib and ../lib/paste from
there. scripts/build-preload makes it.

Not served: programs that are statically linked, or run with the privileges of
another user (setuid), as the library does not get into them; and children that a
program makes by fork after it has opened /dev/netmap, which are told so when
they use it.`,
		Example: `  pastectl run -- ./pkt-gen -i netmap:eth0 -f rx
  pastectl run --pool /dev/shm/kv.pool -- ./phttpd -i pst:eth0`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return newUsageError(cmd, errors.New("missing argument PROGRAM"))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if err := o.exec(args); err != nil {
				return fmt.Errorf("run: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows PROGRAM is its own
	f.StringVar(&o.lib, "lib", "", "libpaste-netmap.so, if it is not where it is looked for")
	f.StringVar(&o.pool, "pool", "", "pool file for the ports' buffers, which is made if there is none")
	f.Var(&o.poolSize, "pool-size", "size of the ports' memory, or of the pool if it has to be created (default 128MiB)")
	f.IntVar(&o.frameSize, "frame-size", 0, "bytes per packet buffer, 2048 or 4096 (default 2048)")
	f.Var(receiveFlag(&o.receive), "receive", "how ports of connections receive, as of serve")
	f.BoolVar(&o.verbose, "verbose", false, "tell why each refused request was refused")
	return cmd
}

// exec becomes the program. It returns only if that fails.
func (o *runOptions) exec(args []string) error {
	lib, err := o.library()
	if err != nil {
		return err
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	if err := preloadable(path, 0); err != nil {
		return err
	}
	if o.pool != "" {
		if o.pool, err = filepath.Abs(o.pool); err != nil {
			return err
		}
	}
	if o.poolSize == 0 && o.pool != "" {
		o.poolSize = 128 << 20
	}
	preload := lib
	if others := os.Getenv("LD_PRELOAD"); others != "" {
		preload += ":" + others
	}
	// Go would interrupt the program's threads to share the CPU among goroutines,
	// and so end their waits with EINTR.
	debug := "asyncpreemptoff=1"
	if others := os.Getenv("GODEBUG"); others != "" {
		debug = others + "," + debug
	}
	env := os.Environ()
	for _, v := range []struct{ name, value string }{
		{"LD_PRELOAD", preload}, {"GODEBUG", debug}, {netmapdev.EnvPool, o.pool},
		{netmapdev.EnvPoolSize, number(int64(o.poolSize))}, {netmapdev.EnvFrameSize, number(int64(o.frameSize))},
		{netmapdev.EnvReceive, o.receive.String()}, {netmapdev.EnvVerbose, map[bool]string{true: "1"}[o.verbose]},
	} {
		env = append(env, v.name+"="+v.value)
	}
	return os.NewSyscallError("exec", syscall.Exec(path, args, lastOfEach(env)))
}

// number is a number, or "" for the default.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// lastOfEach leaves only the last value of each variable: the C library would find
// the first.
func lastOfEach(env []string) []string {
	cmd := exec.Cmd{Env: env}
	return cmd.Environ()
}

// library is the path of libpaste-netmap.so.
func (o *runOptions) library() (string, error) {
	const name, core = "libpaste-netmap.so", "libpaste-netmap-core.so"
	dirs := []string{filepath.Dir(o.lib)}
	if o.lib == "" {
		self, err := os.Executable()
		if err != nil {
			return "", err
		}
		if self, err = filepath.EvalSymlinks(self); err != nil {
			return "", err
		}
		bin := filepath.Dir(self)
		dirs = []string{bin, filepath.Join(bin, "../lib"), filepath.Join(bin, "../lib/paste")}
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if o.lib != "" {
			path = o.lib
		}
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, core)); err != nil {
			return "", fmt.Errorf("%s is not complete: %w; scripts/build-preload makes both files", path, err)
		}
		return filepath.Abs(path)
	}
	if o.lib != "" {
		return "", fmt.Errorf("%s: %w; scripts/build-preload makes it", o.lib, os.ErrNotExist)
	}
	return "", fmt.Errorf("%s is in none of %q; scripts/build-preload makes it, and --lib says where it is", name, dirs)
}
