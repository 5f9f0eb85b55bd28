package main

import (
	"fmt"

	"github.com/pastenet/paste/bpf"
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

// xdpModeFlag makes mode a flag's value.
func xdpModeFlag(mode *bpf.XDPMode) pflag.Value {
	return choice[bpf.XDPMode]{mode, bpf.ParseXDPMode, "auto|native|generic"}
}
