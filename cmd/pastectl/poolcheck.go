package main

import (
	"errors"
	"fmt"

	_ "github.com/pastenet/paste/pmem/btree" // so that pools with trees can be checked and moved
	"github.com/spf13/cobra"
)

// poolCheck is what `pool check --json` prints.
type poolCheck struct {
	Path       string   `json:"path"`
	Records    uint64   `json:"records"`
	Bytes      uint64   `json:"bytes"` // of the records' payload
	Structures int      `json:"structures"`
	DataFrames uint32   `json:"data_frames"`
	UsedFrames uint32   `json:"used_frames"`
	Notes      []string `json:"notes"`
	Problems   []string `json:"problems"`
}

func newPoolCheckCmd(e env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Verify everything in a pool",
		Long: `Verify both copies of the superblock, of the log head and of the roots, every log
entry, every payload, and every structure that a root leads to, and count the
frames. Each problem is one line that says what is wrong where; the exit code is 1
if there is any. Nothing is changed.

A pool that a server has open is not checked: what the server changes meanwhile
would look like damage. Nor can a server open it while it is checked.`,
		Example: `  pastectl pool check /dev/shm/x.pool
  pastectl pool check /dev/shm/x.pool --json`,
		Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			bar := newPoolProgress(e.stderr, "opening ")
			defer func() { bar.close() }()
			p, err := readPool(cmd.Context(), args[0], bar.update)
			if err != nil {
				return err
			}
			defer p.Close()
			bar.close()
			bar = newPoolProgress(e.stderr, "checking ")
			c := poolCheck{Path: args[0], Notes: []string{}, Problems: []string{}}
			res, err := p.Check(cmd.Context(), bar.update, func(err error) {
				c.Problems = append(c.Problems, sentence(err))
			})
			bar.close()
			if err != nil {
				return fmt.Errorf("check %s: %w", args[0], err)
			}
			c.Records, c.Bytes, c.Structures, c.DataFrames, c.UsedFrames = res.Records, res.Bytes, res.Structures, res.Frames, res.Used
			c.Notes = append(c.Notes, res.Notes...)
			if asJSON {
				err = e.printJSON(c)
			} else {
				err = c.print(e)
			}
			if n := len(c.Problems); n > 0 {
				err = errors.Join(err, fmt.Errorf("%s: %s found, the first one: %s", c.Path, problems(n), c.Problems[0]))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *poolCheck) print(e env) error {
	for _, s := range c.Problems {
		fmt.Fprintln(e.stdout, "BAD ", s)
	}
	for _, s := range c.Notes {
		fmt.Fprintln(e.stdout, "note", s)
	}
	verdict := "clean"
	if len(c.Problems) > 0 {
		verdict = problems(len(c.Problems))
	}
	_, err := fmt.Fprintf(e.stdout, "%s: %s; %d records (%s of payload), %d structures, %d of %d frames in use\n",
		c.Path, verdict, c.Records, sizeFlag(c.Bytes).Human(), c.Structures, c.UsedFrames, c.DataFrames)
	return err
}

func problems(n int) string {
	if n == 1 {
		return "1 problem"
	}
	return fmt.Sprintf("%d problems", n)
}
