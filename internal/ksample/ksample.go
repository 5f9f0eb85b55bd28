// Package ksample finds out by sampling what a CPU does: some thousand times a second
// the kernel notes what it is doing there, with the functions that have called each other
// (perf_event_open(2), the software event cpu-clock). It needs no program but this one, and
// costs nothing when it is not running.
package ksample

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	pages      = 256 // of the buffer, a power of two
	period     = 250_000
	maxFrames  = 100
	contextMin = ^uint64(4095) // from there on an address is a mark (PERF_CONTEXT_*)
	drainEvery = 10 * time.Millisecond
)

// Sample is what was running.
type Sample struct {
	PID   int      // 0: the CPU was idle
	User  bool     // it was no kernel code
	Stack []uint64 // addresses in the kernel, the innermost first; valid during the call
}

// Sampler samples one CPU until it is stopped.
type Sampler struct {
	fd   int
	ring []byte
	meta *unix.PerfEventMmapPage
	each func(*Sample)
	quit chan struct{}
	done chan struct{}
	// Lost samples found no room.
	Lost uint64
	err  error
}

// Start has each called with the samples of a CPU, from one goroutine, until Stop.
func Start(cpu int, each func(*Sample)) (*Sampler, error) {
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Sample: period,
		Sample_type: unix.PERF_SAMPLE_IP | unix.PERF_SAMPLE_TID | unix.PERF_SAMPLE_CALLCHAIN,
		Bits:        unix.PerfBitDisabled | unix.PerfBitExcludeCallchainUser}
	attr.Size = uint32(unsafe.Sizeof(attr))
	fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("sample CPU %d: %w", cpu, os.NewSyscallError("perf_event_open", err))
	}
	s := &Sampler{fd: fd, each: each, quit: make(chan struct{}), done: make(chan struct{})}
	s.ring, err = unix.Mmap(fd, 0, (1+pages)*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sample CPU %d: map the buffer: %w", cpu, err), unix.Close(fd))
	}
	s.meta = (*unix.PerfEventMmapPage)(unsafe.Pointer(&s.ring[0]))
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("sample CPU %d: begin: %w", cpu, err), unix.Munmap(s.ring), unix.Close(fd))
	}
	go s.run()
	return s, nil
}

// Stop ends it; each is not called any more.
func (s *Sampler) Stop() error {
	err := unix.IoctlSetInt(s.fd, unix.PERF_EVENT_IOC_DISABLE, 0)
	close(s.quit)
	<-s.done
	runtime.KeepAlive(s)
	return errors.Join(err, s.err, unix.Munmap(s.ring), unix.Close(s.fd))
}

func (s *Sampler) run() {
	defer close(s.done)
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			s.drain()
			return
		case <-tick.C:
			s.drain()
		}
	}
}

// drain reads what there is.
func (s *Sampler) drain() {
	data := s.ring[os.Getpagesize():]
	size := uint64(len(data))
	head, tail := atomic.LoadUint64(&s.meta.Data_head), s.meta.Data_tail
	buf := make([]byte, 0, 1024)
	for tail < head {
		at := tail % size
		length := uint64(binary.NativeEndian.Uint16(data[at+6:])) // records are aligned to 8 bytes
		if length < 8 || length > head-tail {
			s.err = fmt.Errorf("read samples: a record of %d bytes of %d", length, head-tail)
			tail = head
			break
		}
		buf = append(buf[:0], data[at:min(at+length, size)]...)
		buf = append(buf, data[:length-uint64(len(buf))]...)
		s.record(binary.NativeEndian.Uint32(buf), buf[8:])
		tail += length
	}
	atomic.StoreUint64(&s.meta.Data_tail, tail)
}

// record handles a record of a type: struct perf_event_header is before b.
func (s *Sampler) record(kind uint32, b []byte) {
	switch {
	case kind == unix.PERF_RECORD_LOST && len(b) >= 16:
		s.Lost += binary.NativeEndian.Uint64(b[8:])
	case kind == unix.PERF_RECORD_SAMPLE && len(b) >= 24:
		// ip, pid, tid, number of addresses, addresses
		sample := Sample{PID: int(int32(binary.NativeEndian.Uint32(b[8:]))), User: true}
		n := min(int(binary.NativeEndian.Uint64(b[16:])), len(b[24:])/8)
		var stack [maxFrames]uint64
		for i := range n {
			ip := binary.NativeEndian.Uint64(b[24+8*i:])
			if ip >= contextMin {
				sample.User = sample.User && ip != contextKernel
				continue
			}
			if len(sample.Stack) < maxFrames {
				sample.Stack = append(stack[:len(sample.Stack)], ip)
			}
		}
		s.each(&sample)
	}
}

const contextKernel = ^uint64(127) // PERF_CONTEXT_KERNEL, -128
