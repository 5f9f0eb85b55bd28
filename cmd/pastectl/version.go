package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"text/tabwriter"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/uring"
	"github.com/pastenet/paste/pmem"
	"github.com/spf13/cobra"
)

func newVersionCmd(e env) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show what this program was built from and what it runs on",
		Long: `Show the version of pastectl and of the Go compiler, the running kernel and
whether it has what PASTE needs, whether io_uring may be used, and the
instruction that makes stores durable on this processor: what a report about a
problem should begin with. What holds this machine back shows "pastectl doctor".`,
		Example: `  pastectl version
  pastectl version --json`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			v := readVersion()
			if asJSON {
				return e.printJSON(v)
			}
			w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "pastectl\t%s\n", v.Version)
			if v.Revision != "" {
				fmt.Fprintf(w, "revision\t%s\n", v.Revision)
			}
			fmt.Fprintf(w, "go\t%s\n", v.Go)
			fmt.Fprintf(w, "kernel\t%s: %s\n", v.Kernel, v.KernelCheck)
			fmt.Fprintf(w, "io_uring\t%s\n", v.URing)
			fmt.Fprintf(w, "flush\t%s\n", v.Flush)
			return w.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

type versionInfo struct {
	Version     string `json:"version"` // module version, "(devel)" for a local build
	Revision    string `json:"revision,omitempty"`
	Go          string `json:"go"`
	Kernel      string `json:"kernel"`
	KernelCheck string `json:"kernel_check"` // "supported", or what is missing
	URing       string `json:"io_uring"`     // "usable", or why not: then sends are plain
	Flush       string `json:"flush"`        // CLWB, …
}

func readVersion() versionInfo {
	v := versionInfo{
		Version:     "unknown",
		Go:          fmt.Sprintf("%s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH),
		KernelCheck: "supported",
		URing:       "usable",
		Flush:       pmem.FlushName(),
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Version = info.Main.Version
		modified := false
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Revision = s.Value
			case "vcs.modified":
				modified = s.Value == "true"
			}
		}
		if modified && v.Revision != "" {
			v.Revision += " with local changes"
		}
	}
	var err error
	if v.Kernel, err = bpf.KernelRelease(); err != nil {
		v.Kernel = "unknown"
	}
	if err := bpf.CheckKernel(); err != nil {
		v.KernelCheck = sentence(err)
	}
	if err := uring.Check(); err != nil {
		v.URing = "not usable, so each send is a system call: " + sentence(err)
	}
	return v
}
