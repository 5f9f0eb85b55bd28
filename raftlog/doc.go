// Package raftlog keeps the log of hashicorp/raft in a pool: Store is its
// LogStore, its StableStore and a MonotonicLogStore.
//
//	pool, err := pmem.OpenOrCreate("/var/lib/app/raft.pool", pmem.Options{Size: 256 << 20})
//	store, err := raftlog.Open(pool)
//	node, err := raft.NewRaft(config, fsm, store, store, snapshots, transport)
//
// # What is durable when
//
// StoreLogs makes all entries of a call durable by one commit of the pool's log,
// which is one sync on an ordinary disk, and two fences on memory. A crash on
// the way leaves a number of the entries from the first one on, possibly none;
// a call that fails leaves none. DeleteRange is durable when it returns, and a
// crash on the way leaves all that it was to delete, or nothing. So does Set.
//
// # Where it lies
//
// An entry is one record of the pool's log. The records' numbers follow each
// other as raft's indices do; the root "raft.base" says which index belongs to
// which record, and is changed only while the log is empty. The header of a
// record, little-endian:
//
//	 0  term   u64
//	 8  time   i64  AppendedAt, Unix time in nanoseconds; 0: none
//	16  type   u8
//	17  ext    u24  bytes of Extensions
//
// Its payload is the Extensions and behind them the Data. Payloads lie close
// together in the pool's frames, and checksums are compared whenever an entry
// is read. The value of "raft.base":
//
//	0  record u64
//	8  index  u64  of the entry in that record
//
// What Set stores under a key is the root "raft:" and key: up to 62 bytes in
// the root itself (length u16, bytes), longer ones in a frame (length u16,
// reserved [2], CRC-32C u32 of the bytes).
//
// A pool holds one store and nothing else; it must have format version 4.
package raftlog
