// Package pmem keeps packet buffers in persistent memory: it maps a pool file,
// flushes caches, hands out frames, and logs which frames hold whose payload.
//
// # What a pool lives in
//
// A pool must be memory that a NIC can receive into, because an AF_XDP UMEM is
// laid over the whole mapping: a file on tmpfs or hugetlbfs, a memfd
// (NewMemory), or a device-DAX character device (/dev/daxX.Y). The kernel pins
// no page of an ordinary disk file, nor of a file on an fs-DAX mount, for a
// UMEM; such a file is refused with ErrBacking. Backing.Durability says in
// words what survives.
//
// # On-disk format, version 1
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
//	frame 4 ...    log ring, 64-byte entries
//	frame first    data frames, to the end of the file
//
// Superblock, 128 bytes (super.go). Written after everything else and made
// durable alone, so that a file with a complete superblock is a complete pool:
//
//	  0  magic "PASTEPM\x00"
//	  8  version   u32   1
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
// Log head, 64 bytes (loghead.go). Both copies are written for every change,
// one after the other, each flushed and fenced: whichever single copy is torn
// by a crash or rotten, the other one is right.
//
//	 0  magic "PASTELOG"
//	 8  generation u64  of this head; the valid copy with the larger one counts
//	16  pos        u64  position of the oldest live entry
//	24  seq        u64  sequence number of the record that begins there
//	32  epoch      u32  incremented whenever the pool is opened for writing
//	36  minEpoch   u32  no live entry carries a smaller epoch
//	40  reserved   0
//	60  crc        u32  CRC-32C of uuid and bytes 0 to 59
//
// Log entry, 64 bytes, one cache line (logentry.go). Entry number pos, counted
// from 0 for ever, lies in slot pos mod logLen:
//
//	 0  pos      u64
//	 8  seq      u64   record number; the entries of one record share it
//	16  durable  u64   every entry before this position was durable when this one was stored
//	24  frame    u32
//	28  off      u16   of the payload in the frame
//	30  len      u16   of the payload
//	32  epoch    u32
//	36  flags    u16   1 first entry of the record, 2 last, 4 empty record (frame 0, no payload)
//	38  index    u16   of the entry in its record
//	40  sum      u32   CRC-32C of the payload of this entry
//	44  reserved 0
//	60  crc      u32   CRC-32C of uuid and bytes 0 to 59
//
// The uuid in the checksum keeps entries of an earlier pool in the same memory
// from being taken for ours; pos keeps out those of an earlier lap, epoch those
// that a crash left behind beyond the end of the log.
//
// # Order of stores
//
// Log.Append flushes payload and stores nothing in the log. Log.Commit fences
// once, so that all payload is durable; only then stores and flushes the
// entries, and fences again. So an entry can never be durable before its data.
// Log.Truncate makes the new head durable before it frees a frame, so a frame
// is never handed out while a durable entry within the log refers to it.
//
// # What is kept in DRAM
//
// Which frames are free, and each frame's reference count, are derived from the
// log when the pool is opened. Frames held by an application or a NIC are thus
// free again after a crash, and no frame leaks.
package pmem
