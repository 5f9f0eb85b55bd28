// Package command gives Redis' commands their meaning over a store.DB: what they
// change, and what they answer, errors included, to the letter of Redis 7.0. It
// knows nothing of sockets. A Client is one connection's view; whoever calls its
// methods has the DB locked.
package command
