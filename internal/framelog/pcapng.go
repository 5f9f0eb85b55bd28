package framelog

import (
	"fmt"
	"io"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/pastenet/paste/pmem"
)

// WritePcapng writes the frames of a log as a capture file, in their order, with an
// interface for each port. It returns how many there were; records of other logs are an
// error.
func WritePcapng(w io.Writer, log *pmem.Log) (frames int, err error) {
	names, err := portNames(log)
	if err != nil {
		return 0, err
	}
	var out *pcapgo.NgWriter
	for port, name := range names {
		i := pcapgo.DefaultNgInterface
		i.Name, i.LinkType, i.SnapLength = name, layers.LinkTypeEthernet, 1<<18
		if port == 0 {
			out, err = pcapgo.NewNgWriterInterface(w, i, pcapgo.DefaultNgWriterOptions)
		} else {
			_, err = out.AddInterface(i)
		}
		if err != nil {
			return 0, fmt.Errorf("write capture: %w", err)
		}
	}
	var frame []byte
	for r, err := range log.Records() {
		if err != nil {
			return frames, err
		}
		e, ok := Read(r)
		if !ok {
			return frames, fmt.Errorf("record %d is no frame of a switch; `pool log` lists what there is", r.Seq)
		}
		if e.Name != "" {
			continue
		}
		if err := r.Verify(); err != nil {
			return frames, err
		}
		frame = frame[:0]
		for i := range r.Fragments {
			frame = append(frame, r.Payload(i)...)
		}
		ci := gopacket.CaptureInfo{Timestamp: e.Time, CaptureLength: len(frame), Length: len(frame), InterfaceIndex: e.Port}
		if err := out.WritePacket(ci, frame); err != nil {
			return frames, fmt.Errorf("write capture: %w", err)
		}
		frames++
	}
	if err := out.Flush(); err != nil {
		return frames, fmt.Errorf("write capture: %w", err)
	}
	return frames, nil
}

// portNames finds what the ports are called, the last name of each; one at least.
func portNames(log *pmem.Log) (names []string, err error) {
	for r, err := range log.Records() {
		if err != nil {
			return nil, err
		}
		e, ok := Read(r)
		if !ok {
			continue
		}
		for len(names) <= e.Port {
			names = append(names, fmt.Sprint("port ", len(names)))
		}
		if e.Name != "" {
			names[e.Port] = e.Name
		}
	}
	if names == nil {
		names = []string{"port 0"}
	}
	return names, nil
}
