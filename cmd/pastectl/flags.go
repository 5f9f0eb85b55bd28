package main

import (
	"fmt"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/pasteapi"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// choice is a flag whose value is one of a few words.
type choice[T fmt.Stringer] struct {
	value *T
	parse func(string) (T, error)
	words string // for the help text, such as "auto|native|generic"
}

// Set implements pflag.Value, as the other methods do.
func (c choice[T]) Set(s string) error {
	v, err := c.parse(s)
	if err == nil {
		*c.value = v
	}
	return err
}

func (c choice[T]) String() string { return (*c.value).String() }
func (c choice[T]) Type() string   { return c.words }

// once is a flag that may be given once: of two values the command could obey
// only one.
type once struct {
	pflag.Value
	given *string
}

// Set implements pflag.Value.
func (o *once) Set(s string) error {
	if o.given != nil {
		return fmt.Errorf("it is given already, as %q", *o.given)
	}
	o.given = &s
	return o.Value.Set(s)
}

// refuseRepeats makes it an error to give a flag of cmd, or of a command below
// it, twice. Lists are left alone: there a flag adds to what was given before.
func refuseRepeats(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if _, list := f.Value.(pflag.SliceValue); !list {
			f.Value = &once{Value: f.Value}
		}
	})
	for _, sub := range cmd.Commands() {
		refuseRepeats(sub)
	}
}

// receiveFlag makes mode a flag's value.
func receiveFlag(mode *pasteapi.ReceiveMode) pflag.Value {
	return choice[pasteapi.ReceiveMode]{mode, pasteapi.ParseReceiveMode, "auto|steered|copied"}
}

// sendFlag makes mode a flag's value.
func sendFlag(mode *pasteapi.SendMode) pflag.Value {
	return choice[pasteapi.SendMode]{mode, pasteapi.ParseSendMode, "auto|plain|io_uring"}
}

// xdpModeFlag makes mode a flag's value.
func xdpModeFlag(mode *bpf.XDPMode) pflag.Value {
	return choice[bpf.XDPMode]{mode, bpf.ParseXDPMode, "auto|native|generic"}
}
