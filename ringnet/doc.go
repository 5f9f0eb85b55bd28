// Package ringnet is package net over PASTE's rings: its Listener and Conn are a
// net.Listener and a net.Conn, so net/http, crypto/tls, gRPC and whatever else
// serves a net.Listener runs on rings without a change:
//
//	l, err := ringnet.Listen(ctx, "tcp", ":8080", pasteapi.Options{NIC: "eth0"})
//	…
//	http.Serve(l, handler)
//
// TCP is the kernel's, as ever in PASTE. What arrives comes through a ring, and is
// copied from the packet buffer into the reader's memory, once; what is sent goes
// to the socket in the caller's goroutine. Who wants the packet buffers themselves
// calls [Conn.ReadSegment], and may keep them in a log without copying.
//
// # How it works
//
// A [Net] has one pump for each ring of a port: a goroutine that receives for all
// connections of the ring, and accepts. A Read that waits lends its buffer to the
// pump, which fills it and wakes the reader up; what comes while nobody reads is
// kept in its packet buffers, up to 256 KiB for a connection. Beyond that the
// connection is held (pasteapi.Ring.Hold), so that only its own peer waits. No
// connection has a goroutine of its own.
//
// With several rings a connection belongs to the ring that accepted it; on a NIC
// that is steered this is the one of its NIC queue. Connections that were dialled or
// adopted are spread over the rings.
//
// # Differences from package net
//
// TCP only, and no multipath TCP. RawConn.Read of [Conn.SyscallConn] is refused, as the
// bytes that have arrived are not in the socket. Bytes that nobody has read when a
// connection is closed do not make the kernel send RST, as the kernel has none of
// them; its peer sees an orderly end.
//
// # Concurrency and errors
//
// All methods may be called from any goroutine, as in package net. Errors are
// those of package net: *net.OpError that wraps net.ErrClosed,
// os.ErrDeadlineExceeded or an errno such as syscall.ECONNRESET; io.EOF is
// returned as it is.
package ringnet
