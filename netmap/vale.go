package netmap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"sync"

	"github.com/pastenet/paste/netmap/portspec"
)

// vale is a switch with a name, which runs while it has ports. "vale0:a" is a pipe
// whose other end is attached to switch 0.
type vale struct {
	sw    *Switch
	ports map[string]*Port // attached, by what follows the colon
	stop  context.CancelFunc
	done  chan struct{}
	// release gives the name back.
	release func() error
}

// vales are those of this process, by name.
var vales struct {
	sync.Mutex
	open map[string]*vale
}

// openVale opens a port of a switch: the program's end of a pipe.
func (p *Port) openVale(o *openOptions) error {
	s := p.spec
	if s.End != 0 || s.Mode != portspec.AllNIC {
		return fmt.Errorf("a port of a switch has one pair of rings, and no pipes: leave out what follows its name: %w", errors.ErrUnsupported)
	}
	// No name that anybody can write has a colon.
	inner := portspec.Spec{Name: s.Port(), Pipe: "port", End: portspec.Slave, Mode: portspec.AllNIC}
	far, err := OpenSpec(context.Background(), inner, Options{Memory: p.mem, Slots: max(o.rxSlots, o.txSlots)})
	if err != nil {
		return err
	}
	p.spec.Name, p.spec.Pipe, p.spec.End = inner.Name, inner.Pipe, portspec.Master
	err = p.openPipe(o)
	p.spec = s
	if err == nil {
		err = attachVale(s.Switch, s.Name, far)
	}
	if err != nil {
		return errors.Join(err, far.Close())
	}
	p.atEnd(func() error { return ValeDetach(s.Port()) })
	return nil
}

// ValeAttach attaches a NIC to a switch: "vale0:eth0", or with its host's rings
// "vale0:eth0*" (netmap's NETMAP_REQ_VALE_ATTACH). The switch is made if it is the first.
func ValeAttach(ctx context.Context, name string, o Options) error {
	s, err := portspec.Parse(name)
	if err != nil {
		return err
	}
	if s.Subsystem != portspec.Vale {
		return fmt.Errorf("attach %s: a switch's port is called vale0:eth0", name)
	}
	nic := *s
	nic.Subsystem, nic.Switch = portspec.Netmap, ""
	p, err := OpenSpec(ctx, nic, o)
	if err != nil {
		return fmt.Errorf("attach %s: %w", name, err)
	}
	if err := attachVale(s.Switch, s.Name, p); err != nil {
		return errors.Join(err, p.Close())
	}
	return nil
}

func attachVale(name, port string, p *Port) (err error) {
	vales.Lock()
	defer vales.Unlock()
	v := vales.open[name]
	if v == nil {
		v = &vale{ports: map[string]*Port{}, done: make(chan struct{})}
		if v.release, err = claim("vale" + name); err != nil {
			return err
		}
		if v.sw, err = NewSwitch(SwitchOptions{}); err != nil {
			return errors.Join(err, v.release())
		}
		var ctx context.Context
		ctx, v.stop = context.WithCancel(context.Background())
		go func() {
			defer close(v.done)
			if err := v.sw.Run(ctx); err != nil {
				slog.Error("a switch has stopped", "switch", "vale"+name, "cause", err)
			}
		}()
		if vales.open == nil {
			vales.open = map[string]*vale{}
		}
		vales.open[name] = v
	}
	if v.ports[port] != nil {
		return fmt.Errorf("attach vale%s:%s: %w", name, port, ErrBusy)
	}
	if err := v.sw.Attach(p); err != nil {
		return errors.Join(err, v.rest(name))
	}
	v.ports[port] = p
	return nil
}

// rest ends a switch without ports.
func (v *vale) rest(name string) error {
	if len(v.ports) > 0 {
		return nil
	}
	delete(vales.open, name)
	v.stop()
	<-v.done
	return errors.Join(v.sw.Close(), v.release())
}

// ValeDetach takes a port out of a switch and closes it (NETMAP_REQ_VALE_DETACH). The
// switch goes with its last port.
func ValeDetach(name string) error {
	s, err := portspec.Parse(name)
	if err != nil {
		return err
	}
	vales.Lock()
	defer vales.Unlock()
	v := vales.open[s.Switch]
	if v == nil || v.ports[s.Name] == nil {
		return fmt.Errorf("detach %s: this process has no such port", name)
	}
	err = v.sw.Detach(v.ports[s.Name])
	delete(v.ports, s.Name)
	return errors.Join(err, v.rest(s.Switch))
}

// ValeList names the ports of all switches of this process (NETMAP_REQ_VALE_LIST).
func ValeList() (names []string) {
	vales.Lock()
	defer vales.Unlock()
	for sw, v := range vales.open {
		for port := range v.ports {
			names = append(names, "vale"+sw+":"+port)
		}
	}
	sort.Strings(names)
	return names
}
