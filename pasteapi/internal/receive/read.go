package receive

import (
	"unsafe"

	"github.com/pastenet/paste/pasteapi/internal/frames"
	"golang.org/x/sys/unix"
)

// readBatch is how many buffers one system call fills from a socket at most.
const readBatch = 32

// read is the way of bytes that the verdict leaves in the socket: they are read
// into frames when it is their turn.
type read struct {
	frames  *frames.Frames
	count   *Counters
	clock   *Clock
	ready   *ready
	waiting []*Stream // bytes that the kernel has not queued yet, or no frame for them
}

// pending is false: what is in a socket shows in a system call only.
func (w *read) pending() bool { return false }

// fetch has the streams looked at again whose bytes were not there.
func (w *read) fetch() error {
	for _, s := range w.waiting {
		if !s.gone {
			w.ready.add(s)
		}
	}
	w.waiting = w.waiting[:0]
	return nil
}

// wait has a stream looked at again at the next fetch.
func (w *read) wait(s *Stream) { w.waiting = append(w.waiting, s) }

// lot is what one read has brought: n bytes in buffers, all of which but the last
// are full from CopiedDoff on.
type lot struct {
	frames [readBatch]uint32
	run    bool // the first buffer is a run
	want   int  // bytes asked for
	used   int  // buffers
	n      int
	errno  unix.Errno
}

// size is how many bytes buffer i of a lot has room for.
func (w *read) size(l *lot, i int) int {
	if l.run && i == 0 {
		return w.frames.RunSize() - CopiedDoff
	}
	return w.frames.Size() - CopiedDoff
}

// fill reads up to want bytes, in slots buffers at most. It fails with ENOBUFS
// where there is none.
func (w *read) fill(s *Stream, want, slots int) (l lot) {
	room := w.frames.Size() - CopiedDoff
	var iov [readBatch]unix.Iovec
	n := 0
	if s.long && want > room {
		if head, ok := w.frames.TakeRun(); ok {
			l.frames[0], l.run, n = head, true, 1
			l.want = min(w.size(&l, 0), want)
			iov[0].Base = &w.frames.RunBytes(head)[CopiedDoff]
			iov[0].SetLen(l.want)
		}
	}
	for l.want < want && n < min(slots, readBatch) {
		f, ok := w.frames.Take()
		if !ok {
			break
		}
		size := min(room, want-l.want)
		l.frames[n] = f
		iov[n].Base = &w.frames.Bytes(f)[CopiedDoff]
		iov[n].SetLen(size)
		l.want += size
		n++
	}
	if n == 0 {
		w.frames.Empty++
		l.n, l.errno = -1, unix.ENOBUFS
		return l
	}
	l.n, l.errno = w.recvv(s.FD, iov[:n])
	for left := l.n; left > 0; l.used++ {
		left -= w.size(&l, l.used)
	}
	w.give(&l, l.used, n)
	return l
}

// give gives back buffers from one up to another.
func (w *read) give(l *lot, from, to int) {
	for i := from; i < to; i++ {
		if l.run && i == 0 {
			w.frames.GiveRun(l.frames[i])
		} else {
			w.frames.Give(l.frames[i])
		}
	}
}

// drop gives back what was read.
func (w *read) drop(l *lot) {
	w.give(l, 0, l.used)
	l.used, l.n = 0, 0
}

// skip throws up to n bytes away that were received before.
func (w *read) skip(s *Stream, n uint32) (int, unix.Errno) {
	var b [4096]byte
	return w.recv(s.FD, b[:min(uint32(len(b)), n)], 0)
}

// look has the verdict run over segments that came between the reading of a socket
// and its registration. An error is told once, so it is noted.
func (w *read) look(s *Stream) (n int, errno unix.Errno) {
	var b [1]byte
	n, errno = w.recv(s.FD, b[:], unix.MSG_PEEK)
	if errno != 0 && errno != unix.EAGAIN {
		s.cause = errno
	}
	return n, errno
}

// rest reads what waits in a socket that is not under the verdict yet. An end of
// stream is left to be found again by the first event.
func (w *read) rest(s *Stream) error {
	for {
		f, ok := w.frames.Take()
		if !ok {
			return frames.ErrNone
		}
		n, errno := w.recv(s.FD, w.frames.Bytes(f)[CopiedDoff:], 0)
		if errno != 0 || n <= 0 {
			if errno != 0 && errno != unix.EAGAIN {
				s.cause = errno // the socket tells it once
			}
			w.frames.Give(f)
			return nil
		}
		s.push(piece{kind: inFrame, flags: flagCopied, frame: f, off: CopiedDoff, len: uint32(n), skip: wasRead})
		w.count.Read++
		w.count.ReadBytes += uint64(n)
	}
}

// free drops what was not given out.
func (w *read) free(s *Stream) {
	for _, p := range s.pieces[s.first:] {
		if p.kind == inFrame {
			w.frames.Give(p.frame)
		}
	}
	s.pieces, s.first = s.pieces[:0], 0
}

// recv reads from a socket without blocking.
func (w *read) recv(fd int, b []byte, flags int) (int, unix.Errno) {
	w.count.Syscalls++
	was := w.clock.enter(Socket)
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])),
		uintptr(len(b)), uintptr(unix.MSG_DONTWAIT|flags), 0, 0)
	w.clock.enter(was)
	if errno != 0 {
		return -1, errno
	}
	return int(n), 0
}

// recvv reads into several buffers without blocking.
func (w *read) recvv(fd int, iov []unix.Iovec) (int, unix.Errno) {
	w.count.Syscalls++
	was := w.clock.enter(Socket)
	msg := unix.Msghdr{Iov: &iov[0]}
	msg.SetIovlen(len(iov))
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT)
	w.clock.enter(was)
	if errno != 0 {
		return -1, errno
	}
	return int(n), 0
}
