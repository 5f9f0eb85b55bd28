// Package httpd is an HTTP/1.1 server on PASTE's rings, the counterpart of
// upstream's phttpd.
//
// One goroutine per ring, locked to its thread, runs every request to
// completion: Poll brings a batch of TCP segments, each is parsed where it
// lies, replies are written into TX slots, and the next Poll sends them all.
// GET is answered from memory (RPC mode). The body of a POST or PUT becomes
// one record of the pool's log (WAL mode): with PersistZeroCopy the record
// refers to the buffers that the NIC filled, which are taken out of the ring.
//
// The order that makes an answer a promise: bodies are appended during a
// batch, the log is committed once at its end, and TX slots leave only at the
// Poll that follows. When the TX ring fills up within a batch, the log is
// committed before the ring is pushed.
package httpd
