// Package bpf holds the BPF programs of the datapath, loads them and attaches
// them.
//
// There are two sets of programs, one Go object for each:
//
//   - [Steer] is the XDP program on the NIC. It hands TCP segments that carry
//     payload for one of our connections to the AF_XDP socket of their RX queue and
//     lets everything else continue into the kernel. It lives as long as the
//     Steer, or, pinned below a bpffs, until [DetachSteer].
//   - the ticket programs, on the injection device and on the registered
//     sockets, follow a segment through the kernel's TCP and report when the
//     kernel has accepted it.
//
// # Pinned steering
//
// A pinned Steer is a directory in a bpffs (normally /sys/fs/bpf):
//
//	<bpffs>/paste/<inode of the network namespace>/<NIC>/
//	    link    the XDP link: removing it detaches the program
//	    config  steer_config, the NIC's address and VLANs
//	    ports   steer_ports, the TCP ports that are steered
//	    conns   steer_conns, the connections on them that are steered
//	    xsks    steer_xsks, the AF_XDP socket of each RX queue
//	    stats   steer_stats, the per-CPU counters
//	    flows   steer_flows, which connections have segments in user space
//
// It is built in <bpffs>/paste/tmp-… and renamed when it is complete, so a
// crash at any moment leaves either all of it or a temporary directory that
// the next call removes, together with the link inside. All calls that change
// or list pins hold a lock (flock on a file in /run that root alone can open), which
// the kernel releases when its holder dies.
//
// A NIC that disappears takes the program with it and leaves a stale directory
// behind: [ListSteer] reports it, [AttachSteer] replaces it, [DetachSteer]
// removes it.
//
// # Network namespaces
//
// Every function that takes a NIC's name looks it up in the network namespace
// of the calling thread. A caller that changed it has to stay locked to that
// thread (runtime.LockOSThread).
//
// # Errors
//
// Errors wrap the package's sentinels (ErrNotAttached and so on) for callers
// that decide, and read as one sentence that names the thing, the limit and
// the remedy for people.
package bpf
