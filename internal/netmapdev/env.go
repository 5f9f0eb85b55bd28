package netmapdev

import (
	"fmt"
	"os"
	"strconv"

	"github.com/pastenet/paste/pasteapi"
)

// Variables by which `pastectl run` tells the library what it was told.
const (
	EnvPool      = "PASTE_NETMAP_POOL"       // Options.PoolFile
	EnvPoolSize  = "PASTE_NETMAP_POOL_SIZE"  // bytes
	EnvFrameSize = "PASTE_NETMAP_FRAME_SIZE" // bytes
	EnvReceive   = "PASTE_NETMAP_RECEIVE"
	EnvVerbose   = "PASTE_NETMAP_VERBOSE" // not empty: each refused request is told
	EnvBPFFS     = "PASTE_BPFFS"
)

// OptionsFromEnv are the options that the environment has.
func OptionsFromEnv() (o Options, err error) {
	o = Options{PoolFile: os.Getenv(EnvPool), BPFFS: os.Getenv(EnvBPFFS), Verbose: os.Getenv(EnvVerbose) != ""}
	if s := os.Getenv(EnvPoolSize); s != "" {
		if o.PoolSize, err = strconv.ParseInt(s, 10, 64); err != nil || o.PoolSize < 0 {
			return o, fmt.Errorf("%s=%s: must be a number of bytes", EnvPoolSize, s)
		}
	}
	if s := os.Getenv(EnvFrameSize); s != "" {
		if o.FrameSize, err = strconv.Atoi(s); err != nil {
			return o, fmt.Errorf("%s=%s: must be a number of bytes", EnvFrameSize, s)
		}
	}
	if s := os.Getenv(EnvReceive); s != "" {
		if o.Receive, err = pasteapi.ParseReceiveMode(s); err != nil {
			return o, fmt.Errorf("%s: %w", EnvReceive, err)
		}
	}
	return o, nil
}
