// Package lab is the former name of package netlab, for the time of the move.
package lab

import "github.com/pastenet/paste/internal/netlab"

type (
	Lab    = netlab.Lab
	Config = netlab.Config
	Pin    = netlab.Pin
	Netns  = netlab.Netns
	Cmd    = netlab.Cmd
)

var (
	New   = netlab.New
	Sweep = netlab.Sweep
	Alive = netlab.Alive
)
