// Package pmem keeps packet buffers in persistent memory: it maps a pool file,
// flushes caches, hands out frames, and logs which frames hold whose payload.
//
// # What a pool lives in
//
// Pool.Mem is always memory that a NIC can receive into, because an AF_XDP UMEM
// is laid over the whole of it. How it becomes durable is the backing's affair
// (Domain), and Backing.Durability says in words what survives:
//
//	memfd (NewMemory)      mapped    nothing: gone with the process
//	tmpfs, hugetlbfs       mapped    flush + fence; the process, not the machine
//	/dev/daxX.Y            mapped    flush + fence; everything
//	file on fs-DAX         staged    stored once more, past the caches, into the
//	                                 file mapped with MAP_SYNC, + fence; everything
//	any other file         staged    written, one fdatasync per batch; everything
//	                                 that the disk keeps after it said so
//
// The kernel pins no page of a disk file or of a file on fs-DAX for a UMEM.
// Such a pool is staged: its frames are in a memfd, Flush copies what is kept
// into the file, and opening it for writing loads the file into memory. So it
// needs as much memory as it has bytes, and a commit to an ordinary file takes
// as long as its disk needs to sync, however much it holds: commit in batches.
//
// # On-disk format, versions 2 to 4
//
// New pools have version 4. One of version 2 or 3 is opened, for writing as well,
// and keeps its version, so that the program that made it can go on with it. Any
// other is refused with ErrVersion and not touched. Every change of meaning
// gets a new version, also one that an older program would not notice; the
// version before is read from then on, and Dump and Restore lead from any to any.
//
// What version 3 changed: index in a log entry counts modulo 2^16, so that a
// record may have as many entries as the log. In version 2 it does not wrap, and
// a record has at most 65536 entries.
//
// What version 4 changed: an entry from the head's durable position on is live
// only if it carries the head's epoch. Log.TruncateAfter moves that position back
// and begins an epoch, which cuts off the end of the log in one change. And a log
// entry may refer to a run of neighbouring frames (flag 32, run.go); before, it
// refers to bytes of one frame, and flag 32 is damage.
//
// All integers are little-endian. The file is an array of frames of FrameSize
// (2048 or 4096) bytes; frame i begins at byte i*FrameSize. A frame's index is
// therefore its chunk number in the UMEM and its netmap buf_idx, the same after
// every restart.
//
//	frame 0        superblock
//	frame 1        superblock, second copy   (netmap reserves buffers 0 and 1)
//	frame 2        log head
//	frame 3        log head, second copy
//	frame 4 ...    roots, 8192 bytes
//	               roots, second copy, 8192 bytes
//	               log ring, 64-byte entries
//	frame first    data frames, to the end of the file
//
// Everything that exists twice is changed one copy after the other, each
// flushed and fenced: whichever single copy a crash tears or time rots, the
// other one is right. A bad copy is mended before the other one is changed.
//
// Superblock, 128 bytes (super.go). Written after everything else and made
// durable alone, so that a file with a complete superblock is a complete pool:
//
//	  0  magic "PASTEPM\x00"
//	  8  version   u32   4
//	 12  state     u32   1 being created, 2 complete
//	 16  size      u64   of the pool in bytes
//	 24  frameSize u32
//	 28  frames    u32   size / frameSize
//	 32  first     u32   first data frame
//	 36  reserved  u32   0
//	 40  logOffset u64   byte offset of the log ring
//	 48  logLen    u64   entries in the log ring
//	 56  created   i64   Unix time in nanoseconds
//	 64  uuid      [16]
//	 80  reserved  0
//	124  crc       u32   CRC-32C of bytes 0 to 123
//
// Log head, 64 bytes (loghead.go):
//
//	 0  magic "PASTELOG"
//	 8  generation u64  of this head; the valid copy with the larger one counts
//	16  pos        u64  position of the oldest live entry
//	24  seq        u64  sequence number of the record that begins there
//	32  epoch      u32  incremented whenever the pool is opened for writing, or its end cut off
//	36  minEpoch   u32  no live entry carries a smaller epoch
//	40  durable    u64  entries before this position, and their payloads, are durable
//	48  reserved   0
//	60  crc        u32  CRC-32C of uuid and bytes 0 to 59
//
// Roots, 64 bytes and 128 for each root, sorted by name (roots.go):
//
//	 0  magic "PASTROOT"
//	 8  generation u64  the valid copy with the larger one counts
//	16  count      u32  at most 62
//	20  reserved   0
//	60  crc        u32  CRC-32C of uuid, bytes 0 to 59, and the entries
//
//	 0  name       [32] filled up with zeros; at most 31 bytes
//	32  kind       u32  0 value, 1 frame, others as registered (RegisterKind)
//	36  frame      u32  first frame of the structure, or 0
//	40  value      [64] the structure's
//	104 reserved   0
//
// What a pool is for, as Claim noted it, is the value of the root ".purpose":
// text that ends at the first zero.
//
// Log entry, 64 bytes, one cache line (logentry.go). Entry number pos, counted
// from 0 for ever, lies in slot pos mod logLen:
//
//	 0  pos      u64
//	 8  seq      u64   record number; the entries of one record share it
//	16  back     u32   every entry before pos-back was durable when this one was stored
//	20  epoch    u32
//	24  flags    u8    1 first entry of the record, 2 last, 4 empty record,
//	                   8 header only, 16 stored in one go with the payload,
//	                   32 the payload is in more than one frame
//	25  header   u8    bytes of the caller's header in this entry
//	26  index    u16   of the entry in its record, modulo 2^16
//	28  frame    u32   or, with flag 8, up to 32 bytes of header from here to 59
//	32  off      u16   of the payload in the frame; with flag 32, bits 12 to 15 are
//	                   bits 16 to 19 of len
//	34  len      u16   of the payload
//	36  sum      u32   CRC-32C of the payload of this entry
//	40  header         up to 20 bytes
//	60  crc      u32   CRC-32C of uuid and bytes 0 to 59
//
// With flag 32 the payload begins in frame and goes on in those behind it: it is what
// lies in the pool from byte off of frame on, len bytes. It ends in another frame than it
// begins in, and does not go across a multiple of 512 KiB of the file. Each of the
// frames has one reference of the entry's.
//
// The uuid in the checksum keeps entries of an earlier pool in the same memory
// from being taken for ours; pos keeps out those of an earlier lap, epoch those
// that a crash left behind beyond the end of the log.
//
// # Order of stores
//
// Log.Append flushes payload, or leaves that to the commit if it is short, and
// stores nothing in the log. Log.Commit flushes what is left and orders
// (Domain.Order: a fence), so that all payload is durable; only then
// stores and flushes the entries, and fences. So an entry can never be durable
// before its data. In an ordinary file that would cost two syncs; there both go
// in one, the entries carry flag 16, and recovery verifies the payloads of the
// batch that was the last one: what the crash tore was never acknowledged and
// is left out.
//
// Log.Truncate makes the new head durable before it frees a frame, so a frame
// is never handed out while a durable entry within the log refers to it.
//
// # Who owns a frame
//
// Which frames are free, and each frame's reference count, are kept in DRAM and
// derived at Open from what the log and the structures behind the roots reach
// (Kind.Walk). Frames held by an application or a NIC are thus free again after
// a crash, no frame leaks, and none is given out twice. A frame that something
// refers to is never given out by Alloc, so no NIC receives into it.
//
// Frames with payload may be shared, as by the log and a tree. What a structure
// builds itself of, such as a tree's nodes, it claims alone (Sole): a pool in
// which something else refers to such a frame is damaged, and Open names both.
//
// # Memory that goes away
//
// A pool that is open for writing looks after its file: when that is removed,
// replaced or truncated, Lost is closed, and nothing is committed any more but
// fails with ErrLost, which is noticed within a moment (watchEvery).
//
// A load or store in a mapped file that was truncated, or whose medium fails,
// is a fault. Whatever of this package, of btree and of kv returns an error
// turns that into one that wraps ErrTruncated; where something was to be
// stored, it wraps ErrIO as well, and the log or the tree that was being changed
// has failed for good. Code that touches slices of the pool by itself, such as
// a payload, does that under Pool.Guard, or the fault ends the process, as any
// wild access does.
package pmem
