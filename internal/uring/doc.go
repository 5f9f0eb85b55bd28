// Package uring is a small io_uring over raw system calls: one submission
// queue, one completion queue, provided-buffer rings, and the handful of
// socket operations that an event loop needs. It has no goroutines, no locks
// and no allocation on the hot path.
//
// # Ownership and concurrency
//
// A [Ring] belongs to one thread at a time and none of its methods is safe for
// concurrent use. With [Options.SingleIssuer] or [Options.DeferTaskrun] the
// kernel binds the ring to the thread that called [New]: the goroutine must
// have called runtime.LockOSThread before and every later call must come from
// it.
//
// # Memory
//
// The kernel keeps the addresses it is given until the operation completes.
// Buffers, message headers and everything they point at must therefore neither
// move nor be collected: take them from mmap, or pin them with
// [runtime.Pinner] until the completion was seen.
//
// # Source of the layouts
//
// include/uapi/linux/io_uring.h, Linux 6.6 and 6.18. Linux 6.0 is the oldest
// kernel on which every helper works (multishot receive); optional set-up flags
// that a kernel refuses are dropped one after the other.
package uring
