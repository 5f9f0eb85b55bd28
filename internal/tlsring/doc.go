// Package tlsring is TLS between a ring and a server that knows nothing of it: a Ring
// has the methods of a *pasteapi.Ring that event-loop servers use, and its slots carry
// what the peers have encrypted, and take what is to be encrypted.
//
// Records are opened and sealed by crypto/tls in the ring's own goroutine: nothing
// else changes for the server, neither the order of its batches nor when a reply may
// leave. Only handshakes, which wait for the peer and take long, have a goroutine
// each, for as long as they last.
package tlsring
