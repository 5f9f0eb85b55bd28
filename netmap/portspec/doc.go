// Package portspec reads the names by which netmap's users call their ports.
//
//	subsystem:name[mode][/flags][@memory][@option…]
//
//	netmap:eth0                       the rings of all queues of a NIC
//	netmap:eth0-2                     those of queue 2
//	netmap:eth0^                      the host's rings: what the kernel sends and gets by it
//	netmap:eth0^1                     one pair of them
//	netmap:eth0*                      the NIC's and the host's
//	netmap:eth0/R                     received frames only; /T sent ones, /x exclusive
//	netmap:p{1, netmap:p}1            the two ends of a pipe
//	vale0:a                           port a of switch vale0
//	pst:0, pst:0-1                    a port of TCP connections (package pasteapi), ring 1 of it
//	…@3                               in the memory with that number
//	…@conf:rings=2,slots=1024         numbers of rings and slots
//	…@extmem:file=/dev/shm/x.pool     in the memory of that file
//	…@share=netmap:eth1               in the memory of another port
//	…@offset:initial=64,bits=16       payload begins at an offset
//
// The grammar is that of netmap's libnetmap (libnetmap.h), with PASTE's prefix
// pst. [Parse] is strict where the original is not: a number must be one, and be
// in range; what would have no effect is an error. An [Error] knows at which
// character it is, and can draw it.
//
// Names of what this implementation does not have (ptnetmap, the kernel loop, CSB)
// are understood and refused, with an error that wraps errors.ErrUnsupported.
package portspec
