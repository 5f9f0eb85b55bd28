// Package btree is a B+ tree in the frames of a pool, from keys of up to 255
// bytes to values that lie where they were received: fragments of frames, or a
// few bytes in the tree itself.
//
// # Crash consistency
//
// A node is one frame. A commit never changes a node that the durable tree
// reaches: the first change of a node after a commit copies it, and with it the
// nodes above (shadow paging). Further changes go into the copies, so many
// changes share the cost of a commit. A commit writes the checksums of the
// copies, flushes them, fences once, and only then switches the tree's root,
// durably (pmem.Pool.SetRoot). A crash at any moment leaves the tree of the
// last commit; opening reads its root and walks it for the frames it owns.
// Nothing is replayed or rebuilt.
//
// Commit does that in one go; BeginCommit and Step do it in pieces, while the
// tree goes on to change.
//
// # Readers
//
// Methods of Tree see its uncommitted changes and belong to one goroutine. Any
// number of goroutines may read a Snapshot, which is the last commit at its
// time. Frames that a commit made unnecessary are given back when the root
// without them is durable and no older snapshot is open.
//
// # Format, version 1
//
// All integers are little-endian. The tree's root is a pmem.Root of kind
// "TREE": Frame is the root node or 0, and Value is
//
//	 0  generation u64
//	 8  count   u64  of keys
//	16  tag     u64  the owner's
//	24  height  u8   levels, 0 of an empty tree
//	25  version u8   1
//	26  reserved 0
//
// Node, one frame. Slots grow up behind the header, cells down from the end:
//
//	 0  magic "PTTN"
//	 4  crc     u32  CRC-32C of uuid and bytes 8 to the end of the frame
//	 8  generation u64  that the node was written in
//	16  frame   u32  its own
//	20  level   u8   0 for a leaf
//	21  reserved u8
//	22  count   u16  of cells
//	24  heap    u16  where the lowest cell begins
//	26  dead    u16  bytes of removed cells
//	28  reserved u32
//	32  offset  u16  of each cell, in the order of keys
//
// Cell of a leaf: key length u8, value length u8, key, value. Cell of an inner
// node: key length u8, child u32, key; the child holds the keys from this one
// on, and the first cell's key means nothing. Value:
//
//	inline     1 u8, bytes (at most 64)
//	fragments  2 u8, length in front u8, n u8 (1 to 8), length u32, crc u32,
//	           n times {frame u32, off u16, len u16}
//	overflow   3 u8, length in front u8, n u32, length u32, crc u32, frame u32
//
// Overflow frame, with fragments of a value that has more than 8:
//
//	 0  magic "PTTO"
//	 4  crc     u32  CRC-32C of bytes 8 to the end, begun with crc(uuid) XOR frame
//	 8  generation u64
//	16  next    u32  frame with the following fragments, or 0
//	20  count   u16
//	22  reserved u16
//	24  {frame u32, off u16, len u16} count times
package btree
