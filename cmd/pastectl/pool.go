package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/pastenet/paste/pmem"
	"github.com/spf13/cobra"
)

func newPoolCmd(e env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pool",
		Short: "Make pool files and read what is in them",
		Long: `A pool is a file of packet buffers that a NIC receives into, with a log of the
payloads that were kept and named structures. It lives on tmpfs (such as
/dev/shm), on hugetlbfs, on a device-DAX device (/dev/daxX.Y), or, staged in
memory, in a file on any disk; "pool info" says in words what it survives.

"pool info", "pool log" and "pool check" only read. They may be used while a
server has the pool open, and then show a snapshot of it.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPoolCreateCmd(e), newPoolInfoCmd(e), newPoolLogCmd(e), newPoolCheckCmd(e),
		newPoolGrowCmd(e), newPoolDumpCmd(e), newPoolRestoreCmd(e))
	return cmd
}

func newPoolCreateCmd(e env) *cobra.Command {
	var o pmem.Options
	var size sizeFlag
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create FILE",
		Short: "Make a pool",
		Long: `Make an empty pool. All of its memory is reserved at once. A file that exists is
left alone unless --force is given, and one that somebody has open even then.

--size may be left out for a device-DAX device; the pool then takes all of it.`,
		Example: `  pastectl pool create /dev/shm/x.pool --size 1GiB
  pastectl pool create /dev/dax0.0 --frame-size 4096`,
		Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Size = int64(size)
			p, err := makePool(cmd.Context(), args[0], func() (*pmem.Pool, error) { return pmem.Create(args[0], o) })
			if err != nil {
				return err
			}
			info := readPoolInfo(p)
			if err := p.Close(); err != nil {
				return fmt.Errorf("close pool %s: %w", args[0], err)
			}
			if asJSON {
				return e.printJSON(info)
			}
			_, err = fmt.Fprintf(e.stdout, "created %s: %s on %s (%s), %d frames of %d bytes, log of %d entries\n",
				info.Path, sizeFlag(info.Size).Human(), info.Backing, info.Durability, info.DataFrames, info.FrameSize, info.LogEntries)
			return err
		},
	}
	f := cmd.Flags()
	f.Var(&size, "size", "size of the pool, such as 64MiB or 1GiB")
	f.IntVar(&o.FrameSize, "frame-size", pmem.DefaultFrameSize, "bytes of a packet buffer, 2048 or 4096")
	f.BoolVar(&o.Overwrite, "force", false, "replace what is there")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// poolInfo is what `pool info --json` prints.
type poolInfo struct {
	Path       string    `json:"path"`
	Purpose    string    `json:"purpose,omitempty"` // what a server has claimed it for
	Format     int       `json:"format"`            // version
	UUID       string    `json:"uuid"`
	Created    time.Time `json:"created"`
	Backing    string    `json:"backing"`
	Durability string    `json:"durability"`
	// Live is set when a writer has the pool open: the rest is a snapshot.
	Live   bool   `json:"live"`
	Writer string `json:"writer,omitempty"`
	poolGeometry
	// LogFrames are the data frames that the log and other structures refer to.
	LogFrames  uint32 `json:"log_frames"`
	LogEntries uint64 `json:"log_entries"`
	LogUsed    uint64 `json:"log_entries_used"`
	Records    int    `json:"records"`
	FirstSeq   uint64 `json:"first_seq"` // of the oldest record, if there are any
	NextSeq    uint64 `json:"next_seq"`
	Bytes      uint64 `json:"bytes"`     // of all payloads
	Discarded  uint64 `json:"discarded"` // entries of a record that was never committed
	// Roots leads from the names of structures to their kinds.
	Roots  map[string]string `json:"roots"`
	Damage string            `json:"damage,omitempty"`
}

// poolGeometry is how a pool is divided.
type poolGeometry struct {
	Size       int64  `json:"size"`
	FrameSize  int    `json:"frame_size"`
	Frames     uint32 `json:"frames"`
	FirstFrame uint32 `json:"first_frame"`
	DataFrames uint32 `json:"data_frames"`
}

func readPoolInfo(p *pmem.Pool) poolInfo {
	l := p.Log()
	rec := l.Recovery()
	info := poolInfo{
		Path: p.Path(), Purpose: p.Purpose(), Format: p.Version(), UUID: p.UUID().String(), Created: p.Created(),
		Backing: p.Backing().String(), Durability: p.Backing().Durability(),
		Live: p.Live(), Writer: p.Writer(),
		poolGeometry: poolGeometry{
			Size: int64(len(p.Mem())), FrameSize: p.FrameSize(), Frames: p.Frames(), FirstFrame: p.FirstFrame(),
			DataFrames: p.Frames() - p.FirstFrame(),
		},
		LogEntries: p.LogEntries(), LogUsed: l.Used(),
		Records: l.Len(), FirstSeq: l.Head(), NextSeq: l.Next(), Bytes: rec.Bytes, Discarded: rec.Discarded,
	}
	info.LogFrames = info.DataFrames - uint32(p.Free())
	info.Roots = map[string]string{}
	for name, r := range p.Roots() {
		info.Roots[name] = fmt.Sprintf("kind %#x", r.Kind)
		if k, ok := pmem.KindOf(r.Kind); ok {
			info.Roots[name] = k.Name
		}
	}
	if len(p.Problems()) > 0 {
		info.Damage = p.Problems()[0].Error()
	}
	return info
}

// snapshotNote is the first line about a pool that changes while it is read.
func (i *poolInfo) snapshotNote() string {
	if !i.Live {
		return ""
	}
	return fmt.Sprintf("snapshot of a live pool: %s has it open\n", i.Writer)
}

// damaged is the error that a command ends with after it has shown what it could.
func (i *poolInfo) damaged() error {
	if i.Damage == "" || i.Live { // what a writer changes meanwhile is no damage
		return nil
	}
	return fmt.Errorf("%s: %s; what is before the damage can be read, see `pastectl pool check`", i.Path, i.Damage)
}

func newPoolInfoCmd(e env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "info FILE",
		Short: "Show a pool's geometry and how much of it is in use",
		Example: `  pastectl pool info /dev/shm/x.pool
  pastectl pool info /dev/shm/x.pool --json`,
		Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := readPool(cmd.Context(), args[0], nil)
			if err != nil {
				return err
			}
			defer p.Close()
			info := readPoolInfo(p)
			if asJSON {
				err = e.printJSON(info)
			} else {
				err = info.print(e)
			}
			return errors.Join(err, info.damaged())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (i *poolInfo) print(e env) error {
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, i.snapshotNote())
	fmt.Fprintf(w, "pool\t%s\n", i.Path)
	if i.Purpose != "" {
		fmt.Fprintf(w, "purpose\t%s\n", i.Purpose)
	}
	fmt.Fprintf(w, "format\tversion %d\n", i.Format)
	fmt.Fprintf(w, "uuid\t%s\n", i.UUID)
	fmt.Fprintf(w, "created\t%s\n", i.Created.Format(time.RFC3339))
	fmt.Fprintf(w, "backing\t%s: %s\n", i.Backing, i.Durability)
	fmt.Fprintf(w, "size\t%s (%d bytes)\n", sizeFlag(i.Size).Human(), i.Size)
	fmt.Fprintf(w, "frames\t%d of %d bytes; %d hold data, from frame %d on\n", i.Frames, i.FrameSize, i.DataFrames, i.FirstFrame)
	fmt.Fprintf(w, "in use\t%d frames; %d of %d log entries\n", i.LogFrames, i.LogUsed, i.LogEntries)
	if i.Records == 0 {
		fmt.Fprintf(w, "records\tnone; the next one is %d\n", i.NextSeq)
	} else {
		fmt.Fprintf(w, "records\t%d, from %d to %d, %s of payload\n", i.Records, i.FirstSeq, i.FirstSeq+uint64(i.Records)-1, sizeFlag(i.Bytes).Human())
	}
	for _, name := range slices.Sorted(maps.Keys(i.Roots)) {
		fmt.Fprintf(w, "root\t%q: %s\n", name, i.Roots[name])
	}
	if i.Discarded > 0 {
		fmt.Fprintf(w, "discarded\t%d entries of a record that was never committed\n", i.Discarded)
	}
	return w.Flush()
}
