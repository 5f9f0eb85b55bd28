package main

import (
	"errors"
	"fmt"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pasteapi"
	"github.com/pastenet/paste/pmem"
)

// hints lead from what went wrong with an interface to the command that helps;
// the libraries do not know these commands.
var hints = []struct {
	is   error
	help string // with a place for the interface's name
}{
	{bpf.ErrNotAttached, "`pastectl attach %s` does that"},
	{bpf.ErrOtherMode, "`pastectl detach %s` first"},
	{bpf.ErrOtherVersion, "`pastectl detach %s` first"},
	{bpf.ErrNoBPFFS, "from outside: `nsenter --net=/run/netns/NAME pastectl attach %s`"},
	{pasteapi.ErrNICInUse, "`pastectl status %s` shows it"},
}

// withHint adds to an error about an interface, or a pool, what helps.
func withHint(err error, nic string) error {
	if errors.Is(err, pmem.ErrOwner) {
		return fmt.Errorf("%w; `--allow-foreign-pool` does that", err)
	}
	for _, h := range hints {
		if nic != "" && errors.Is(err, h.is) {
			return fmt.Errorf("%w; "+h.help, err, nic)
		}
	}
	return err
}
