package xsk

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Fd returns the file descriptor, to be stored in an XSKMAP or polled; it stays the
// socket's. -1 after Close.
func (s *Socket) Fd() int { return s.fd }

// Ifindex returns the index of the device.
func (s *Socket) Ifindex() int { return s.ifindex }

// Queue returns the queue's number.
func (s *Socket) Queue() int { return s.queue }

// ZeroCopy reports whether the socket was bound in zero-copy mode, as the kernel tells it.
func (s *Socket) ZeroCopy() bool { return s.zeroCopy }

// MultiBuffer reports whether frames may be in several buffers.
func (s *Socket) MultiBuffer() bool { return s.multi }

// Mode is the mode that was obtained: Copy or ZeroCopy.
func (s *Socket) Mode() BindMode {
	if s.zeroCopy {
		return ZeroCopy
	}
	return Copy
}

// TxBudget returns how many descriptors one KickTx sends at most in copy mode; 0 without a TX ring.
func (s *Socket) TxBudget() int { return s.txBudget }

// Fill hands empty frames, by address, to the kernel to receive into, and returns
// how many of them, from the front, the ring had room for.
// Any address in a frame stands for the whole frame.
func (s *Socket) Fill(addrs []uint64) int { return s.fill.putAddrs(addrs) }

// FillFrames is Fill with frame numbers (address divided by frame size) instead of addresses.
func (s *Socket) FillFrames(frames []uint32) int { return s.fill.putFrames(frames, s.shift) }

// FillFree returns how many frames Fill would accept now.
func (s *Socket) FillFree() int { return int(s.fill.size - s.fill.unconsumed()) }

// FillSize is how many frames the fill ring has room for.
func (s *Socket) FillSize() int { return int(s.fill.size) }

// FillNeedsWakeup reports whether the kernel wants WakeRx to look at the fill ring again.
// Only zero-copy sockets with NeedWakeup ever say so.
func (s *Socket) FillNeedsWakeup() bool { return s.fill.needsWakeup() }

// WakeRx makes the kernel continue to receive. It never blocks and does not wait for frames.
func (s *Socket) WakeRx() error {
	// RawSyscall, like in KickTx.
	_, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	if e != 0 && !again(e) {
		return s.errno("wake RX", e)
	}
	return nil
}

// Receive copies up to len(descs) descriptors of received frames into descs, gives their
// ring entries (not their frames) back to the kernel, and returns their number.
func (s *Socket) Receive(descs []Desc) int { return s.rx.getDescs(descs) }

// Transmit queues frames to be sent, and returns how many of them, from the front, the
// ring had room for. They are the kernel's until Complete returns their addresses.
// Descriptors that are invalid (empty, leaving their frame or the UMEM) are not sent but
// counted in Stats.TxInvalidDescs. Whether Complete returns them depends on the kernel:
// 6.18.44 does, older ones leak them.
func (s *Socket) Transmit(descs []Desc) int { return s.tx.putDescs(descs) }

// TxFree returns how many descriptors Transmit would accept now.
func (s *Socket) TxFree() int { return int(s.tx.size - s.tx.unconsumed()) }

// TxPending returns how many queued descriptors the kernel has not taken yet.
// In copy mode KickTx makes it do so. Before Linux 6.17 those count too that a KickTx has
// sent which then returned ErrAgain.
func (s *Socket) TxPending() int { return int(s.tx.unconsumed()) }

// TxNeedsWakeup reports whether the kernel wants KickTx to look at the TX ring. In copy
// mode it always does.
func (s *Socket) TxNeedsWakeup() bool { return s.tx.needsWakeup() }

// KickTx makes the kernel send what was queued. It never blocks. ErrAgain (the bare
// value, to be compared with ==) means that something is left in the ring: the budget was
// used up, the completion ring or the device's queue is full, or the socket's send buffer
// is. ErrAgain also stands for a frame that the device dropped on overload (EBUSY); that
// one is completed, not left.
func (s *Socket) KickTx() error {
	// RawSyscall: with MSG_DONTWAIT the call never sleeps for an event, and Syscall would
	// hand the thread's P over to the scheduler and back each time, which costs more than
	// small batches take to send. In exchange the thread cannot be preempted for the few
	// microseconds that the frames need.
	_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	if e == 0 {
		return nil
	}
	if again(e) && s.tx.size > 0 { // without a TX ring, ENOBUFS is for ever
		return ErrAgain
	}
	return s.errno("kick TX", e)
}

// Complete copies the addresses of up to len(addrs) frames that were sent into addrs, and
// returns their number. Each is the Addr of a descriptor as it was given to Transmit
// (even one that was out of range, see there); the frames are the program's again. The
// order is that in which the device finished them.
func (s *Socket) Complete(addrs []uint64) int { return s.comp.getAddrs(addrs) }

// CompletePending returns how many addresses Complete would return now.
func (s *Socket) CompletePending() int { return int(s.comp.available(s.comp.size)) }

// again reports whether e is a passing condition.
func again(e unix.Errno) bool {
	return e == unix.EAGAIN || e == unix.EBUSY || e == unix.ENOBUFS || e == unix.EINTR
}

func (s *Socket) errno(op string, e unix.Errno) error {
	if s.fd < 0 {
		return fmt.Errorf("%s on queue %d of %s: %w", op, s.queue, s.name, net.ErrClosed)
	}
	if e == unix.ENETDOWN {
		return fmt.Errorf("%s on queue %d of %s: %w (ip link set %s up)", op, s.queue, s.name, e, s.name)
	}
	return fmt.Errorf("%s on queue %d of %s: %w", op, s.queue, s.name, e)
}

// RxPending reports whether Receive would return something now.
func (s *Socket) RxPending() bool { return s.rx.available(1) != 0 }
