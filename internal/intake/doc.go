// Package intake is what a log that is written and read over the network keeps
// beside its records: named cursors, the idempotency keys of what was stored, and
// when records came. All of it is in a tree (package btree) of the log's own pool,
// made when something is to be kept for the first time, and as durable as the log.
//
// The tree is committed before the log. So an idempotency key may be durable
// whose record is not, and never the other way about: Open drops the keys of
// records that the log does not have, and a request that is tried again then is
// stored. Nobody was told of either.
//
// # Format
//
// The tree's root is RootName. Integers are little-endian, but for those of keys:
//
//	'c' name          a cursor: next u64, flags u8 (1: it protects)
//	'k' hash [32]     an idempotency key, by its SHA-256: record u64, time i64,
//	                  SHA-256 of what was asked for [32]
//	's' record u64    big-endian: hash [32] of the key that it was stored by
//	't' record u64    big-endian: time i64; the records below were there by then
//
// Times are nanoseconds since 1970, UTC.
package intake
