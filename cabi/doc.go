// Package cabi is libpaste-netmap: it lets C programs that were written for the netmap
// or PASTE kernel module run on this module, as they are. `pastectl run` starts them.
//
//   - preload: libpaste-netmap.so, in C. The dynamic linker loads it before the C
//     library; it stands in for open, ioctl, mmap, poll and their like.
//   - core: libpaste-netmap-core.so, in Go. The first loads it when a program opens
//     /dev/netmap. It is package internal/netmapdev with C's calling convention.
//   - ctest: the programs of the tests here, and what they need of netmap's C
//     interface, written from its documentation.
//
// scripts/build-preload builds both libraries. `go build ./...` builds neither, and
// needs no C compiler.
package cabi
