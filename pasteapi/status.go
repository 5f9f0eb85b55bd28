package pasteapi

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/pastenet/paste/bpf"
	"github.com/pastenet/paste/internal/hist"
	"github.com/pastenet/paste/xsk"
)

// Attachment says how long a NIC stays attached.
type Attachment int

const (
	NotAttached     Attachment = iota // there is no NIC
	AttachedProcess                   // as long as the port is open
	AttachedPinned                    // until `pastectl detach`
)

var attachmentNames = [...]string{NotAttached: "", AttachedProcess: "process", AttachedPinned: "pinned"}

// String returns "", "process" or "pinned".
func (a Attachment) String() string {
	if a < 0 || int(a) >= len(attachmentNames) {
		return fmt.Sprintf("Attachment(%d)", int(a))
	}
	return attachmentNames[a]
}

// MarshalText makes the attachment a word in JSON.
func (a Attachment) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (a *Attachment) UnmarshalText(text []byte) error {
	for i, name := range attachmentNames {
		if string(text) == name {
			*a = Attachment(i)
			return nil
		}
	}
	return fmt.Errorf("unknown attachment %q: must be process or pinned", text)
}

// QueueStatus describes the AF_XDP socket on one NIC queue.
type QueueStatus struct {
	Queue int          `json:"queue"`
	Mode  xsk.BindMode `json:"mode"`
}

// PoolStatus describes the pool behind a port.
type PoolStatus struct {
	Path       string `json:"path"`
	Backing    string `json:"backing"`
	Durability string `json:"durability"`
	FrameSize  int    `json:"frame_size"` // bytes
	Frames     uint32 `json:"frames"`
	Free       int    `json:"free"`
	LogUsed    uint64 `json:"log_used"` // entries
	LogEntries uint64 `json:"log_entries"`
}

// ReceiveStatus says which ways in a port uses.
type ReceiveStatus struct {
	Mode    ReceiveMode `json:"mode"`    // that was asked for
	Steered bool        `json:"steered"` // the NIC's frames are
	Why     string      `json:"why"`     // in words
}

// SendStatus says how a port sends.
type SendStatus struct {
	Mode SendMode `json:"mode"` // that was asked for
	Used SendMode `json:"used"` // SendPlain or SendURing
	Why  string   `json:"why"`  // in words
}

// Status describes a port, for people and for `pastectl status`.
type Status struct {
	NIC      string            `json:"nic"`            // "": none, and then the next two mean nothing
	NICs     []string          `json:"nics,omitempty"` // all of them, where there are several
	PID      int               `json:"pid"`
	XDP      bpf.XDPMode       `json:"xdp"`
	Attached Attachment        `json:"attached"`
	Injected string            `json:"injected"`       // where payload comes in: "nic", or "device" where that cannot be
	Lost     string            `json:"lost,omitempty"` // why everything is copied at the moment, although there should be a NIC
	Receive  ReceiveStatus     `json:"receive"`
	Send     SendStatus        `json:"send"`
	NAPIPoll time.Duration     `json:"napi_poll,omitempty"` // how long a ring that goes to sleep polls the NIC, nanoseconds
	Ports    []uint16          `json:"ports"`
	Queues   []QueueStatus     `json:"queues"`
	Pool     PoolStatus        `json:"pool"`
	Stats    Stats             `json:"stats"`
	Steer    map[string]uint64 `json:"steer"`
	Tickets  map[string]uint64 `json:"tickets"`
	Batches  Histogram         `json:"batches"`       // slots of each Poll that had some
	Commits  Histogram         `json:"commits"`       // of the pool's log: nanoseconds
	App      *App              `json:"app,omitempty"` // of an application that has called Describe
}

// Histogram is how often values of a kind have occurred.
type Histogram = hist.Snapshot

// App is what an application tells about itself.
type App struct {
	Name     string            `json:"name"`          // what it is
	URL      string            `json:"url,omitempty"` // where it is
	Counters map[string]uint64 `json:"counters"`
}

// Describe has Status tell about the application, too. app is called from other
// goroutines until Close.
func (p *Port) Describe(app func() App) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.app = app
}

// Status may be called from any goroutine until Close.
func (p *Port) Status() Status {
	s, app := p.status()
	if app != nil {
		a := app()
		s.App = &a
	}
	return s
}

func (p *Port) status() (Status, func() App) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{NIC: p.opts.NIC, PID: os.Getpid(), Pool: p.poolStatus(),
		Ports: []uint16{}, Queues: []QueueStatus{}, Steer: map[string]uint64{}, Tickets: map[string]uint64{}}
	if p.closed || !p.opened {
		return s, nil
	}
	s.Receive = ReceiveStatus{Mode: p.opts.Receive, Steered: p.nic != nil, Why: p.why}
	s.Send, s.NAPIPoll = p.opts.Send.status(), p.opts.NAPIPoll
	s.Ports = append(s.Ports, p.ports...)
	s.Lost = p.lost
	s.Commits = p.opts.Pool.Log().CommitTimes()
	for _, r := range p.rings {
		rs := r.Stats()
		s.Stats.add(&rs)
		s.Batches.Add(r.pace.batches.Snapshot())
		if counters, err := r.tk.Counters(); err == nil {
			for name, v := range counters {
				s.Tickets[name] += v
			}
		}
	}
	if p.nic != nil {
		p.nic.describe(&s)
	}
	if len(p.others) > 0 {
		s.NICs = append([]string{p.opts.NIC}, p.names()...)
	}
	return s, p.app
}

func (p *Port) poolStatus() PoolStatus {
	pool := p.opts.Pool
	return PoolStatus{
		Path: pool.Path(), Backing: pool.Backing().String(), Durability: pool.Backing().Durability(),
		FrameSize: pool.FrameSize(), Frames: pool.Frames(), Free: pool.Free(),
		LogUsed: pool.Log().Used(), LogEntries: pool.LogEntries(),
	}
}

// describe fills in what concerns the NIC.
func (e *nicEnd) describe(s *Status) {
	for q, sock := range e.socks {
		s.Queues = append(s.Queues, QueueStatus{Queue: q, Mode: sock.Mode()})
	}
	info := e.steer.Info()
	s.XDP, s.Attached = info.Mode, AttachedProcess
	if info.Pinned {
		s.Attached = AttachedPinned
	}
	s.Injected = "device"
	if e.ingress != nil {
		s.Injected = "nic"
	}
	if counters, err := e.steer.Counters(); err == nil {
		s.Steer = counters
	}
}

// names are those of the further NICs.
func (p *Port) names() []string { return slices.Sorted(maps.Keys(p.others)) }
