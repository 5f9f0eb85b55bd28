package portspec

import (
	"fmt"
	"strconv"
	"strings"
)

// Subsystem is the part of a name that says what kind of port it is.
type Subsystem int

const (
	Netmap Subsystem = iota // a NIC, a pipe, or no device at all
	Vale                    // a port of a switch
	Pst                     // a port of TCP connections
)

var prefixes = [...]string{Netmap: "netmap", Vale: "vale", Pst: "pst"}

// String is the prefix.
func (s Subsystem) String() string {
	if s < 0 || int(s) >= len(prefixes) {
		return fmt.Sprintf("Subsystem(%d)", int(s))
	}
	return prefixes[s]
}

// Mode says which rings are meant. The values are netmap's (NR_REG_* in
// net/netmap.h).
type Mode uint32

const (
	AllNIC     Mode = 1 // the rings of all queues
	Host       Mode = 2 // all of the host's
	NICAndHost Mode = 3
	OneNIC     Mode = 4 // those of queue Spec.Ring
	Null       Mode = 7 // none: memory alone. It has no spelling
	OneHost    Mode = 8 // pair Spec.Ring of the host's
)

// Flags of a port. The values are netmap's (NR_* in net/netmap.h).
type Flags uint64

const (
	MonitorTX  Flags = 0x100
	MonitorRX  Flags = 0x200
	ZCopyMon   Flags = 0x400
	Exclusive  Flags = 0x800
	RxOnly     Flags = 0x2000
	TxOnly     Flags = 0x4000
	DoRxPoll   Flags = 0x10000 // no letter: set by programs
	NoTxPoll   Flags = 0x20000 // no letter: set by programs
	flagLetter       = "xztrRT"
)

var flagOf = map[byte]Flags{'x': Exclusive, 'z': ZCopyMon, 't': MonitorTX, 'r': MonitorRX, 'R': RxOnly, 'T': TxOnly}

// Limits that come from the widths of netmap's fields.
const (
	maxName  = 63   // struct nmreq_header, nr_name with its zero
	maxRing  = 4094 // below NETMAP_RING_MASK
	maxRings = 4094
	maxSlots = 1 << 16
	maxMemID = 1<<16 - 1
)

// PipeEnd is the end of a pipe: '{' the master, '}' the slave, 0 for no pipe.
type PipeEnd byte

const (
	Master PipeEnd = '{'
	Slave  PipeEnd = '}'
)

// Spec is a port's name, taken apart.
type Spec struct {
	Subsystem Subsystem
	Switch    string // of a vale port: what follows "vale" before the colon
	Name      string // the NIC, or the port of a switch; of a pipe: before the brace
	Pipe      string // the pipe's identifier
	End       PipeEnd
	Mode      Mode
	Ring      int // of OneNIC and OneHost
	Flags     Flags
	MemID     int // 0: not said

	Conf   Conf
	Extmem *Extmem
	Share  string // name of the port whose memory it is to have
	Offset *Offset
}

// Conf is option conf: how many rings and slots a port has. 0 leaves it to the
// port.
type Conf struct {
	TxRings, RxRings         int
	HostTxRings, HostRxRings int
	TxSlots, RxSlots         int
}

// Extmem is option extmem: the memory of a file.
type Extmem struct {
	File              string
	IfNum, IfSize     int
	RingNum, RingSize int
	BufNum, BufSize   int
}

// Offset is option offset: where in a buffer a frame begins.
type Offset struct {
	Initial int // bytes
	Bits    int // of the slot's ptr field that hold it; 0: all
}

// Port is the name without mode, flags and options, as netmap has it in
// nmreq_header.nr_name: "eth0", "eth0{1", "vale0:a".
func (s *Spec) Port() string {
	name := s.Name
	if s.End != 0 {
		name += string(s.End) + s.Pipe
	}
	switch s.Subsystem {
	case Vale:
		return "vale" + s.Switch + ":" + name
	case Pst:
		return "pst:" + name
	}
	return name
}

// String writes the name. Parse of it gives an equal Spec.
func (s *Spec) String() string {
	var b strings.Builder
	if s.Subsystem == Netmap {
		b.WriteString("netmap:")
	}
	b.WriteString(s.Port())
	switch s.Mode {
	case Host:
		b.WriteByte('^')
	case NICAndHost:
		b.WriteByte('*')
	case OneNIC:
		fmt.Fprintf(&b, "-%d", s.Ring)
	case OneHost:
		fmt.Fprintf(&b, "^%d", s.Ring)
	}
	letters := ""
	for _, c := range []byte(flagLetter) {
		if s.Flags&flagOf[c] != 0 {
			letters += string(c)
		}
	}
	if letters != "" {
		b.WriteString("/" + letters)
	}
	if s.MemID != 0 {
		fmt.Fprintf(&b, "@%d", s.MemID)
	}
	s.writeOptions(&b)
	return b.String()
}

func (s *Spec) writeOptions(b *strings.Builder) {
	for _, o := range options {
		var keys []string
		for _, k := range o.keys {
			if k.aliasOf(o) {
				continue
			}
			if v := k.get(s); v != "" {
				keys = append(keys, k.name+"="+v)
			}
		}
		if len(keys) > 0 {
			b.WriteString("@" + o.name + ":" + strings.Join(keys, ","))
		}
	}
}

func itoa(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
