// Package store keeps typed values, strings, hashes and streams, with times at
// which they expire, in the key-value store of a pool.
//
// # Keys of the pool
//
// The first byte of a key in the pool says what it is; numbers are big-endian, so
// that keys are in their order. An object is a hash or a stream; its number is
// given out once and for all, so whatever is found under the number of an object
// that is gone belongs to nobody.
//
//	k name                      a value, see below
//	f object u64, field         a hash's field: its bytes
//	s object u64, id            a stream's entry: the fields, as RESP strings
//	g object u64, group         a consumer group of a stream
//	c object u64, group u64, consumer
//	p object u64, group u64, id an entry that a consumer has not acknowledged
//	e time u64, name            the value of that name expires then
//	d object u64                what is found under that number can go
//
// An id is time u64, number u64. Times are in milliseconds since 1970.
//
// # Values
//
// A value begins with one byte: its kind in the lower bits, 128 if it expires, and
// 64 if a string's bytes are stored as the reply that a GET gets. Then the time, if
// it expires. The rest is a string's bytes, or what hash.go and stream.go say.
//
// # Commands and batches
//
// A DB belongs to whoever has locked it. The changes of one command are gathered
// and applied together at its end (Apply), so a command is never half done, also
// not after a crash; the commands between Begin and End likewise. Commit makes
// durable what was applied. An error of the pool sticks until TakeErr.
package store
