// Package http1 parses HTTP/1.1 requests that arrive in arbitrary pieces.
//
// It is made for servers that are handed the payload of one TCP segment at a time and want to
// keep a body where it was received: body bytes are returned as ranges of the caller's input and
// are never copied, and nothing is allocated for a request whose header lies in one piece. A
// header that is spread over several pieces is gathered in a buffer of at most MaxHeader bytes
// that the Parser allocates once and keeps.
//
// The grammar is that of RFC 9112, read strictly: whatever two implementations could understand
// differently (a bare LF, a space before a colon, a folded line, repeated or contradicting
// lengths, Content-Length next to Transfer-Encoding) is refused, because it is the raw material
// of request smuggling.
package http1
