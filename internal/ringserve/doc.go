// Package ringserve is what servers on rings have in common, whatever they speak: the
// phases of their life, the connections that they accept, and the TX ring as they
// write answers into it. Its types belong to the goroutine of one ring, but for Life.
package ringserve
