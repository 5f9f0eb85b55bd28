// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//
// What the ticket programs and user space share: types and maps.
#ifndef PASTE_TICKET_H
#define PASTE_TICKET_H

#include "paste_bpf.h"

// A ticket's number is slot | generation << 16. Slot 0 means "no ticket".
// State is generation << 2 | status, and changes by compare-and-exchange:
// IN_FLIGHT to DELIVERED here, IN_FLIGHT to FREE in user space; whoever wins
// owns the payload, the other one uses its own copy.
enum ticket_status {
	TICKET_FREE = 0,
	TICKET_IN_FLIGHT = 1,
	TICKET_DELIVERED = 2,
};
SHARED(enum, ticket_status);

struct ticket {
	__u64 cookie; // socket that the segment is for (SO_COOKIE)
	__u32 seq;    // TCP sequence number of the payload's first byte
	__u32 len;    // payload length in bytes
	__u32 state;
	__u32 reserved;
};

// One per skb that TCP hands over, in order for each socket.
struct delivery {
	__u64 cookie;
	__u32 ticket; // 0: none
	__u32 seq;    // of the first byte
	__u32 len;
	__u32 consumed; // first byte that the socket had not consumed before
	__u32 flags;
	__u32 reserved;
};

enum delivery_flag {
	DELIVERY_FIN = 1, // the peer's FIN came with these bytes, or alone
	// Without a ticket and without this the bytes wait for recv().
	DELIVERY_DATA = 2, // the bytes follow the record
};
SHARED(struct, delivery);
SHARED(enum, delivery_flag);

// COPY_MAX is the most bytes that are copied into a record, instead of being
// left for recv(), which is a system call for each connection. What is longer
// is worth one. A power of two.
enum delivery_limit { COPY_MAX = 8192 };
SHARED(enum, delivery_limit);

// Shared with user space through mmap.
struct control {
	__u32 sleeping;	 // user space is about to sleep: wake it, once
	__u32 overflows; // sockets that lost a record because the ring was full
	__u32 passing;	 // entries in ticket_passed
	__u32 nic;	 // index of the interface that injected packets come in on;
			 // 0: the injection device
	__u32 stopping;	 // entries in ticket_stopped
};

enum ticket_counter {
	TICKET_CLAIMED,
	TICKET_NO_TICKET, // came without a ticket
	TICKET_STALE,	  // ticket was reclaimed, or is another one by now
	TICKET_RANGE,	  // ticket does not cover the bytes (coalesced skb)
	TICKET_OVERFLOW,  // ring buffer was full
	TICKET_COPIED,	  // of these: copied into the ring buffer
	TICKET_COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
} ticket_sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct ticket);
} ticket_table SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} ticket_control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} ticket_deliveries SEC(".maps");

// A socket with bytes that wait for recv(). Its copied_seq does not say what came
// last, as TCP's own reader moves it only when those are read.
struct passed {
	__u32 first;	// if lost: sequence number of the first byte without a record
	__u32 next;	// of the byte after the last one that was seen here
	__u32 overlaps; // if lost: skbs that repeat bytes and could not be cut, so
			// that nobody can tell where those lie
	__u32 lost;	// a record could not be written. From then on all bytes stay in
			// the kernel, so that their order is never in doubt
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct passed);
} ticket_passed SEC(".maps");

// Sockets of which user space wants no more records: what comes has to stay in the
// kernel, so that the peer's window closes.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u32);
} ticket_stopped SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TICKET_COUNTERS);
	__type(key, enum ticket_counter);
	__type(value, __u64);
} ticket_stats SEC(".maps");

#endif
