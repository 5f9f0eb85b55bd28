// Package serve is the main of a server process: it opens the pool and the
// port, says when the server is ready, serves until its context ends, and
// gives everything back in order. `serve http`, `serve kv` and `serve
// redis` differ only in what requests mean.
package serve
