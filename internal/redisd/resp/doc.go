// Package resp reads and writes the Redis serialization protocol, versions 2 and
// 3: requests as multi-bulk and as inline commands, and replies of every kind.
//
// It stands on nothing but byte slices. A request is parsed where it was
// received; nothing is copied, and a request that is not whole yet is gone on
// with where the last attempt has ended.
package resp
