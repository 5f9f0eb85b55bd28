package pasteapi

import (
	"errors"
	"fmt"
	"time"

	"github.com/pastenet/paste/pasteapi/internal/wait"
	"github.com/pastenet/paste/xsk"
)

// maxNAPIPoll is the most that Options.NAPIPoll may be: a ring that polls a NIC does
// nothing else.
const maxNAPIPoll = time.Second

// checkNAPIPoll refuses a value that cannot be, or that something else makes idle.
func (o *Options) checkNAPIPoll() error {
	switch {
	case o.NAPIPoll == 0:
		return nil
	case o.NAPIPoll < time.Microsecond || o.NAPIPoll > maxNAPIPoll:
		return fmt.Errorf("open port: %v of polling the NIC (NAPIPoll): need 1µs to %v", o.NAPIPoll, maxNAPIPoll)
	case o.NIC == "":
		return errors.New("open port: NAPIPoll is about a NIC: name it, or leave that out")
	case o.Spin < 0:
		return errors.New("open port: a ring polls the NIC when it begins to sleep (NAPIPoll), and one that always spins (Spin) never does: leave one of them out")
	}
	return nil
}

// CheckNAPIPoll returns nil where the kernel lets a ring poll a NIC (Options.NAPIPoll).
// The error wraps errors.ErrUnsupported, and says why not.
func CheckNAPIPoll() error {
	w, err := wait.New(0)
	if err != nil {
		return err
	}
	return errors.Join(w.PollNAPI(time.Microsecond), w.Close())
}

// pollNAPI has the rings poll the NIC, if that was asked for.
func (p *Port) pollNAPI() error {
	o := &p.opts
	if o.NAPIPoll == 0 {
		return nil
	}
	for _, r := range p.rings {
		if err := r.wait.PollNAPI(o.NAPIPoll); err != nil {
			return err
		}
	}
	nic, err := findNIC(o)
	if err != nil {
		return err
	}
	n, err := xsk.NAPIs(nic.Attrs().Index)
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("%s has no NAPI instance to poll (NAPIPoll): its driver uses none, or, as a veth, has neither XDP nor GRO switched on: %w", o.NIC, errors.ErrUnsupported)
	}
	return nil
}
