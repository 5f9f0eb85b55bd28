// Package kv is a key-value store in a pool: a log and a tree used as one
// thing. Values stay in the buffers where they were received.
//
// # How a change becomes durable
//
// Put and Delete append one record to the pool's log and change the tree
// (package btree) in frames that nothing durable refers to yet. Commit makes
// all records of a batch durable with two fences; that is the promise to the
// client. The tree follows in a checkpoint: now and then its changed nodes are
// flushed, its root is switched, and the log is truncated up to there. Commit
// does a small piece of that work each time, so nothing ever stops for it.
//
// Open takes the tree as it is and applies the log records behind its
// checkpoint. Of a pool in which a record was damaged after it had been
// acknowledged Open refuses to make a store (pmem.ErrChecksum,
// pmem.ErrDamaged, with the name of the record): it would be one with a hole. A
// damaged value that a checkpoint has already passed spoils only its own key:
// with Options.Verify Get finds it, and everything else is served.
//
// # What is seen
//
// Get and Scan see changes before they are committed. Who passes on what it
// read must call Commit first, as who changed something must: then nobody is
// ever told of something that a crash can undo.
//
// # Records
//
// The first fragment of a record begins with 24 bytes, little-endian:
//
//	 0  magic  u16  "KV"
//	 2  op     u8   1 put, 2 put inline, 3 delete, 4 delete all, 5 put of a value
//	                whose Pre are this head and the key; 128 is added if the
//	                change belongs together with that of the next record
//	 3  length u8   of the key
//	 4  front  u8   see btree.Value.Pre
//	 5  reserved [3]
//	 8  number u64  of the change; the tree's tag is the last one that it holds
//	16  size   u32  of the value, with what lies in front of it
//	20  reserved u32
//
// A change that belongs together with others is applied when all of them are
// there: what a crash has left of a batch's last group is dropped by Open.
//
// The head is followed by the key and the beginning of the value; the rest of the value are
// the other fragments. A value of at most btree.MaxInline bytes goes into the
// tree itself, one of less than an eighth of a frame is copied behind its
// record's head, and every other stays where it is.
package kv
