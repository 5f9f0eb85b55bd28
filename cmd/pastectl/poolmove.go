package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pastenet/paste/pmem"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func newPoolGrowCmd(e env) *cobra.Command {
	var size sizeFlag
	cmd := &cobra.Command{
		Use:   "grow FILE --size SIZE",
		Short: "Make a pool larger",
		Long: `Make a pool larger while nobody has it open. The new frames are free; the log
keeps its number of entries. A crash on the way leaves the old or the new size.`,
		Example: `  pastectl pool grow /dev/shm/x.pool --size 2GiB`,
		Args:    exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := pmem.Grow(args[0], int64(size)); err != nil {
				return err
			}
			p, err := readPool(cmd.Context(), args[0], nil)
			if err != nil {
				return err
			}
			defer p.Close()
			_, err = fmt.Fprintf(e.stdout, "%s has %s now, %d of %d frames are free\n",
				args[0], sizeFlag(len(p.Mem())).Human(), p.Free(), p.Frames()-p.FirstFrame())
			return err
		},
	}
	cmd.Flags().Var(&size, "size", "new size of the pool, such as 2GiB")
	cmd.MarkFlagRequired("size")
	return cmd
}

func newPoolDumpCmd(e env) *cobra.Command {
	return &cobra.Command{
		Use:   "dump FILE > ARCHIVE",
		Short: "Write the content of a pool to an archive",
		Long: `Write the log's records and all structures to standard output, in a form that
"pool restore" makes a pool of another size, frame size or medium from. Everything
is verified on the way; the dump ends with an error at the first damage.`,
		Example: `  pastectl pool dump /dev/shm/x.pool > x.archive
  pastectl pool dump /dev/shm/x.pool | zstd > x.archive.zst`,
		Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f, ok := e.stdout.(*os.File); ok {
				if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
					return newUsageError(cmd, errors.New("an archive is not for a terminal; redirect standard output to a file"))
				}
			}
			p, err := readPool(cmd.Context(), args[0], nil)
			if err != nil {
				return err
			}
			defer p.Close()
			if p.Live() {
				return fmt.Errorf("dump pool %s: %w: %s has it open, and would change it underneath; stop that first", args[0], pmem.ErrLocked, p.Writer())
			}
			bar := newPoolProgress(e.stderr, "dumping ")
			defer bar.close()
			total := uint64(p.Frames()-p.FirstFrame()-uint32(p.Free())) * uint64(p.FrameSize())
			ctx := cmd.Context()
			return p.Dump(writerFunc(func(b []byte) (int, error) {
				if ctx.Err() != nil {
					return 0, ctx.Err()
				}
				return e.stdout.Write(b)
			}), func(n uint64) { bar.update(min(n, total), total) })
		},
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func newPoolRestoreCmd(e env) *cobra.Command {
	var o pmem.Options
	var size sizeFlag
	cmd := &cobra.Command{
		Use:   "restore ARCHIVE FILE",
		Short: "Make a pool from an archive",
		Long: `Make a new pool from what "pool dump" wrote; "-" reads the archive from standard
input. The new pool may have another size, frame size and medium. Records keep
their sequence numbers. The file appears when all of it is there.

--size may be left out for a device-DAX device; the pool then takes all of it.`,
		Example: `  pastectl pool restore x.archive /var/lib/x.pool --size 4GiB
  zstd -d < x.archive.zst | pastectl pool restore - /dev/dax0.0 --frame-size 4096`,
		Args: exactArgs("ARCHIVE", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, total := io.Reader(os.Stdin), uint64(0)
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("restore pool: %w", err)
				}
				defer f.Close()
				if st, err := f.Stat(); err == nil {
					total = uint64(st.Size())
				}
				in = f
			}
			bar := newPoolProgress(e.stderr, "restoring ")
			defer bar.close()
			o.Size = int64(size)
			p, err := pmem.Restore(&countingReader{ctxErr: cmd.Context().Err, r: bufio.NewReader(in), report: func(n uint64) { bar.update(n, total) }}, args[1], o)
			if err != nil {
				return err
			}
			info := readPoolInfo(p)
			structures := 0
			for range p.Roots() {
				structures++
			}
			if err := p.Close(); err != nil {
				return fmt.Errorf("close pool %s: %w", args[1], err)
			}
			bar.close()
			_, err = fmt.Fprintf(e.stdout, "restored %s: %s on %s (%s), %d records, %d structures\n",
				info.Path, sizeFlag(info.Size).Human(), info.Backing, info.Durability, info.Records, structures)
			return err
		},
	}
	f := cmd.Flags()
	f.Var(&size, "size", "size of the pool, such as 64MiB or 1GiB")
	f.IntVar(&o.FrameSize, "frame-size", pmem.DefaultFrameSize, "bytes of a packet buffer, 2048 or 4096")
	f.IntVar(&o.LogEntries, "log-entries", 0, "least number of log entries; 0 means two per frame")
	f.BoolVar(&o.Overwrite, "force", false, "replace what is there")
	return cmd
}

type countingReader struct {
	ctxErr func() error
	r      io.Reader
	n      uint64
	report func(uint64)
}

func (c *countingReader) Read(b []byte) (int, error) {
	if err := c.ctxErr(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(b)
	c.n += uint64(n)
	c.report(c.n)
	return n, err
}
