// Package raftkv replicates a key-value store by hashicorp/raft: FSM is raft's
// state machine over pmem/kv, Command what goes through raft's log.
//
// # What is durable
//
// A change is durable by raft's log (package raftlog). The store in its pool
// follows: with each batch of entries the index of the last one is stored in one
// group with their changes, so that after a crash the store is that of some
// index, and raft's replay of the entries up to there changes nothing. It is
// committed now and then, and before a snapshot is taken, after which raft
// deletes entries. So a node that restarts needs neither snapshot nor the whole log.
//
// # Snapshots
//
// A snapshot is of one index, and the store goes on meanwhile: before a key
// is changed that the snapshot has not passed, its old value is put aside, as a
// reference to where it lies. A stream of a snapshot has a checksum behind
// its end, so that one that was torn is not taken for whole. Restore first stores
// a mark, durably, and takes it away in one step with the new index: a store
// with that mark is of no use, and has to be restored again.
//
// A stream, integers little-endian:
//
//	magic "PASTESN1", index u64
//	for each key: length of the key + 1 (uvarint), of the value (uvarint), key, value
//	0 (uvarint), number of keys u64, CRC-32C u32 of everything before it
package raftkv
