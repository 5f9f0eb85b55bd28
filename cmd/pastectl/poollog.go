package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/pastenet/paste/internal/framelog"
	"github.com/pastenet/paste/pmem"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// logRecord is one record in `pool log --json`.
type logRecord struct {
	Seq       uint64        `json:"seq"`
	Length    int64         `json:"length"`
	Checksum  string        `json:"checksum"` // "ok" or "BAD"
	Header    []byte        `json:"header,omitempty"`
	Fragments []logFragment `json:"fragments"`
}

type logFragment struct {
	Frame  uint32 `json:"frame"`
	Offset uint16 `json:"offset"`
	Length uint16 `json:"length"`
}

func describeRecord(r pmem.Record) logRecord {
	d := logRecord{Seq: r.Seq, Length: r.Length, Checksum: "ok", Header: r.Header, Fragments: []logFragment{}}
	if r.Verify() != nil {
		d.Checksum = "BAD"
	}
	for _, f := range r.Fragments {
		d.Fragments = append(d.Fragments, logFragment{Frame: f.Frame, Offset: f.Off, Length: f.Len})
	}
	return d
}

// line is the record in one line of text.
func (r *logRecord) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%10d %12d  %-8s", r.Seq, r.Length, r.Checksum)
	if len(r.Header) > 0 {
		fmt.Fprintf(&b, " %x", r.Header)
	}
	for _, f := range r.Fragments {
		fmt.Fprintf(&b, " %d:%d+%d", f.Frame, f.Offset, f.Length)
	}
	return strings.TrimRight(b.String(), " ") + "\n"
}

type poolLogOptions struct {
	json, raw, verify, pcapng bool
	record                    uint64
}

func newPoolLogCmd(e env) *cobra.Command {
	var o poolLogOptions
	cmd := &cobra.Command{
		Use:   "log FILE",
		Short: "List the records of a pool's log, or print one of them",
		Long: `List the records: sequence number, length in bytes, whether the payload is what
was stored ("ok" or "BAD"), the header if it has one, in hexadecimal, and the
pieces of the payload as frame:offset+length.

The exit code is 1 when a record or the log itself is damaged.`,
		Example: `  pastectl pool log /dev/shm/x.pool
  pastectl pool log /dev/shm/x.pool --verify
  pastectl pool log /dev/shm/x.pool --record 17 --raw > body
  pastectl pool log /dev/shm/frames.pool --pcapng | tshark -r -`,
		Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			one := cmd.Flags().Changed("record")
			switch {
			case o.raw && !one:
				return newUsageError(cmd, errors.New("--raw needs --record"))
			case o.pcapng && (one || o.json || o.verify):
				return newUsageError(cmd, errors.New("--pcapng writes all frames: --record, --json and --verify exclude it"))
			case o.raw && (o.json || o.verify), one && o.verify:
				return newUsageError(cmd, errors.New("--raw, --json and --record with --verify exclude each other"))
			}
			p, err := readPool(cmd.Context(), args[0], nil)
			if err != nil {
				return err
			}
			defer p.Close()
			if o.pcapng {
				return writePcapng(e, p)
			}
			if one {
				return printRecord(e, p, o)
			}
			return listRecords(e, p, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.Uint64Var(&o.record, "record", 0, "only the record with this sequence number")
	f.BoolVar(&o.raw, "raw", false, "with --record: write the payload to standard output, and nothing else")
	f.BoolVar(&o.verify, "verify", false, "check every payload, and list only the bad ones")
	f.BoolVar(&o.pcapng, "pcapng", false, "of a switch's log: write a capture file to standard output, for tshark or tcpdump")
	return cmd
}

// writePcapng writes the frames of a switch as a capture file.
func writePcapng(e env, p *pmem.Pool) error {
	if f, ok := e.stdout.(*os.File); ok {
		if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			return errors.New("standard output is a terminal: send the capture file to a file or a program (| tshark -r -)")
		}
	}
	w := bufio.NewWriter(e.stdout)
	if _, err := framelog.WritePcapng(w, p.Log()); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", p.Path(), err), w.Flush())
	}
	return w.Flush()
}

func printRecord(e env, p *pmem.Pool, o poolLogOptions) error {
	r, err := p.Log().Record(o.record)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Path(), err)
	}
	d := describeRecord(r)
	switch {
	case o.raw:
		_, err = r.WriteTo(e.stdout)
	case o.json:
		err = e.printJSON(d)
	default:
		_, err = fmt.Fprint(e.stdout, d.line())
	}
	if bad := r.Verify(); bad != nil {
		err = errors.Join(err, fmt.Errorf("%s: %w", p.Path(), bad))
	}
	return err
}

func listRecords(e env, p *pmem.Pool, o poolLogOptions) error {
	info := readPoolInfo(p)
	w := bufio.NewWriter(e.stdout)
	list := struct {
		poolInfo
		Bad  int         `json:"bad"`
		List []logRecord `json:"list"`
	}{poolInfo: info, List: []logRecord{}}
	if !o.json {
		fmt.Fprint(w, info.snapshotNote())
		if !o.verify {
			fmt.Fprintf(w, "%10s %12s  %-8s %s\n", "SEQUENCE", "LENGTH", "CHECKSUM", "FRAGMENTS")
		}
	}
	var damage error
	seen := 0
	for r, err := range p.Log().Records() {
		if err != nil {
			damage = fmt.Errorf("%s: %w", p.Path(), err)
			break
		}
		seen++
		d := describeRecord(r)
		if d.Checksum != "ok" {
			list.Bad++
		}
		switch {
		case o.verify && d.Checksum == "ok":
		case o.json:
			list.List = append(list.List, d)
		default:
			w.WriteString(d.line())
		}
	}
	list.Records = seen // of a live pool some may have gone meanwhile
	if o.json {
		damage = errors.Join(damage, e.printJSON(list))
	} else {
		if o.verify || seen == 0 {
			fmt.Fprintf(w, "%d records, %d bad\n", seen, list.Bad)
		}
		damage = errors.Join(damage, w.Flush())
	}
	if list.Bad > 0 {
		damage = errors.Join(damage, fmt.Errorf("%s: %d of %d records do not match their checksums", p.Path(), list.Bad, seen))
	}
	return errors.Join(damage, info.damaged())
}
