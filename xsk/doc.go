// Package xsk opens AF_XDP sockets over memory that the caller brings.
//
// AF_XDP delivers raw frames into, and sends them from, one region of user
// memory, the UMEM. Most libraries allocate that region themselves; this one
// takes any page-aligned mapping (anonymous memory, a memfd, a file on tmpfs or
// hugetlbfs, device-DAX), so that a received frame already lies where its
// owner wants to keep it.
//
// # Parts
//
//   - [Umem] describes the memory. It is cut into frames (the kernel says
//     "chunks") of equal size. A UMEM address is a byte offset into it.
//
//   - [Socket] is bound to one queue of one network device. Sockets of one Umem
//     share its memory, also across devices, queues and network namespaces.
//
//   - Each socket has up to four rings that it shares with the kernel.
//
// A frame is always owned by exactly one side; the rings hand it over:
//
//	ring        method    what is handed over
//	fill        Fill      empty frames to the kernel, to receive into
//	RX          Receive   received frames to the program
//	TX          Transmit  frames to send to the kernel
//	completion  Complete  sent frames back to the program
//
// A socket receives nothing until an XDP program on its device redirects frames to it
// through a map of type BPF_MAP_TYPE_XSKMAP, keyed by the queue number; Socket.Fd is the
// value to store. Loading that program is left to the caller. Sending needs no program.
//
// # Concurrency
//
// The rings are single producer, single consumer, and take no locks. One
// goroutine at a time may use a given ring; different rings of one socket
// may be used by different goroutines. Close must not run at the same time
// as any other method. Umem and Open may be used by several goroutines.
//
// # Wake-ups
//
// In copy mode the kernel transmits only inside a system call: call KickTx after
// Transmit. It works through a limited number of descriptors per call (see [Options].TxBudget) and
// answers ErrAgain when some are left. In zero-copy mode with NeedWakeup, call KickTx only while
// TxNeedsWakeup reports true and WakeRx only while FillNeedsWakeup does. To sleep until frames
// arrive, poll Socket.Fd for POLLIN.
//
// # Privileges and versions
//
// Opening a socket needs CAP_NET_RAW; pinning more memory than RLIMIT_MEMLOCK needs
// CAP_IPC_LOCK. The package is meant for Linux 6.6 and newer. TX metadata needs 6.8 (with
// the stable update that introduced XDP_UMEM_TX_METADATA_LEN, or 6.11), the TX budget
// 6.17. Open says when the former is missing, Socket.TxBudget when the latter is.
//
// Layouts and constants are those of the kernel's include/uapi/linux/if_xdp.h; behaviour
// is described in Documentation/networking/af_xdp.rst and xsk-tx-metadata.rst.
package xsk
