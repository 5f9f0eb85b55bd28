// Package redisd is a Redis-compatible server on PASTE's rings: package command's
// commands over package store's data, for clients that speak what package resp
// reads and writes.
//
// A ring's loop takes the segments that have come, of all connections, does the
// commands in them, makes all that they have changed durable at once, and only
// then lets the answers leave: whoever has an answer, to a write or to a read,
// was told of nothing that a crash can undo. All rings share one DB, and a batch
// has it locked, so commands are done one after the other, as with Redis.
//
// A value that is stored in frames, and long enough, is sent from where it lies.
// What a client may take of the server is bounded as package httpd bounds it: a
// window of answers that it has not read, beyond which nothing else that it asks
// for is looked at; a limit for what it has sent and does not complete; and time.
package redisd
