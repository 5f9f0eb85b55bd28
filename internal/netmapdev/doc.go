// Package netmapdev is /dev/netmap for a program of this process: it understands
// the requests of netmap's and PASTE's C interface, and serves them with the ports
// of this module. libpaste-netmap (directory cabi) gives it to programs that were
// written for the kernel module.
//
// A [Device] has files, which open("/dev/netmap") makes. A file is bound to rings
// of a port by its first NETMAP_REQ_REGISTER, and then can be synchronised, waited
// for, and mapped. Descriptor numbers of files are real: each is an epoll set of
// what wakes its rings, so that anybody can wait for it.
//
// A port's memory is one region, as netmap has it: a pool (package pmem), whose
// frames are the buffers, and behind it the rings and what describes them. Ports of
// one memory number share it, and may exchange buffers.
//
// Methods may be called from any thread. Requests wait for each other; rings only
// for who uses the same one.
package netmapdev
