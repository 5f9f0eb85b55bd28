package pasteapi

import (
	"encoding/binary"
	"fmt"

	"github.com/pastenet/paste/xsk"
)

// injector sends frames into the kernel's TCP: AF_XDP transmission on the far
// end of the injection device. In copy mode the kernel has copied a frame when
// it has taken its descriptor, so nothing here waits for completions.
type injector struct {
	sock     *xsk.Socket
	umem     *xsk.Umem
	mac      [6]byte
	partial  bool // frames may carry partial checksums (the NIC is a veth)
	metadata bool // and the kernel can be told so (Linux 6.8)
	batch    []xsk.Desc
	unnamed  []uint32 // frames without a ticket: free once the kernel has copied them
	scratch  []uint64
}

// injectorSize is the size of the injection TX ring, a bound on the frames of
// one sync.
const injectorSize = 1024

func (j *injector) room() int { return max(injectorSize-len(j.batch), 0) }

// add puts a frame into the batch. The Ethernet header is written anew in
// front of the IP header, so a VLAN tag disappears, as it would have on the
// VLAN's own interface.
func (j *injector) add(mem []byte, at uint64, s *segment, f []byte, ticket uint32) {
	start := s.l3 - ethHeader
	eth := f[start:s.l3]
	copy(eth[0:6], j.mac[:])
	eth[6], eth[7] = 0x02, 'p' // locally administered
	binary.NativeEndian.PutUint32(eth[8:12], ticket)
	if s.v6 {
		binary.BigEndian.PutUint16(eth[12:14], ethIPv6)
	} else {
		binary.BigEndian.PutUint16(eth[12:14], ethIPv4)
	}
	d := xsk.Desc{Addr: at + uint64(start), Len: uint32(s.end - start)}
	if j.partial && s.partialChecksum(f) {
		if j.metadata && d.Addr&7 == 0 {
			j.umem.SetTxChecksum(&d, uint16(s.l4-start), tcpCsumOffset)
		} else {
			s.completeChecksum(f)
		}
	}
	j.batch = append(j.batch, d)
}

// flush gives the batch to the kernel. The receive path of TCP runs inside the
// system calls, on this CPU. It returns the number of calls and whether the
// kernel has copied everything; if not, it is out of memory and the next sync
// goes on.
func (j *injector) flush() (calls uint64, done bool, err error) {
	rest := j.batch
	for stuck := 0; len(rest) > 0 || j.sock.TxPending() > 0; {
		rest = rest[j.sock.Transmit(rest):]
		before := j.sock.TxPending()
		err = j.sock.KickTx()
		calls++
		// Completions mean nothing here, but a full ring would stop the kernel.
		for j.sock.Complete(j.scratch) == len(j.scratch) {
		}
		if err != nil && err != xsk.ErrAgain {
			err = fmt.Errorf("inject: %w", err)
			break
		}
		err = nil
		if j.sock.TxPending() < before {
			stuck = 0
		} else if stuck++; stuck > 100 {
			break
		}
	}
	done = len(rest) == 0 && j.sock.TxPending() == 0
	j.batch = j.batch[:copy(j.batch, rest)]
	return calls, done, err
}
