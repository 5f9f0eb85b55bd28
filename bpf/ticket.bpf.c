//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//
// Claim tickets: the two programs between the injection device and user space.
//
// User space keeps a received frame and sends a copy of it into the kernel
// through a TAP device, with the number of a ticket in the source MAC address.
// paste_tag, at the ingress of that device, sends it on to the ingress of the NIC,
// where it moves to skb->priority. The kernel's TCP does all of its work. When it has accepted
// the segment in order, paste_verdict sees it, claims the ticket, tells user
// space through the ring buffer and drops the kernel's copy. Bytes that come
// without a valid ticket ("stray") are copied into the ring buffer if they are
// few; else they stay in the kernel and user space is told to recv() them.
// Every byte is in exactly one of these places.
#include "paste_bpf.h"

char __license[] SEC("license") = "Dual BSD/GPL";

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
	__u32 ticket; // 0: stray
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
};

enum ticket_counter {
	TICKET_CLAIMED,
	TICKET_STRAY_NONE,   // came without a ticket
	TICKET_STRAY_STALE,  // ticket was reclaimed, or is another one by now
	TICKET_STRAY_RANGE,  // ticket does not cover the bytes (coalesced skb)
	TICKET_STRAY_OVERFLOW, // ring buffer was full
	TICKET_STRAY_COPIED, // of these: copied into the ring buffer
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

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TICKET_COUNTERS);
	__type(key, enum ticket_counter);
	__type(value, __u64);
} ticket_stats SEC(".maps");

INLINE void count(enum ticket_counter counter)
{
	__u64 *value = bpf_map_lookup_elem(&ticket_stats, &counter);
	if (value)
		(*value)++;
}

// paste_tag makes what user space has written to the injection device a packet
// that is received on the NIC (paste_ingress finds the ticket again there), or,
// where that cannot be, on the injection device itself.
SEC("tcx/ingress")
int paste_tag(struct __sk_buff *skb)
{
	struct ethhdr *eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return TCX_DROP;
	__u32 zero = 0;
	struct control *ctl = bpf_map_lookup_elem(&ticket_control, &zero);
	__u32 nic = ctl ? *(volatile __u32 *)&ctl->nic : 0;
	if (nic) {
		skb->tc_index = INJECTED;
		return bpf_redirect(nic, BPF_F_INGRESS);
	}
	skb->priority = ticket_of(eth);
	return TCX_NEXT;
}

// claim takes the ticket for the bytes [seq, seq+len) of a socket, or says why
// not. The cookie keeps a sender that forges skb->priority from claiming
// another connection's frame.
INLINE __u32 claim(__u32 ticket, __u64 cookie, __u32 seq, __u32 len)
{
	__u32 slot = ticket & 0xffff;
	if (!slot)
		return TICKET_STRAY_NONE;
	struct ticket *t = bpf_map_lookup_elem(&ticket_table, &slot);
	if (!t)
		return TICKET_STRAY_NONE;

	__u32 mine = (ticket >> 16) << 2 | TICKET_IN_FLIGHT;
	if (*(volatile __u32 *)&t->state != mine || t->cookie != cookie)
		return TICKET_STRAY_STALE;
	__u32 skip = seq - t->seq;
	if (skip > t->len || len > t->len - skip)
		return TICKET_STRAY_RANGE;
	__u32 delivered = (ticket >> 16) << 2 | TICKET_DELIVERED;
	if (__sync_val_compare_and_swap(&t->state, mine, delivered) != mine)
		return TICKET_STRAY_STALE;
	return TICKET_CLAIMED;
}

// reserve_copy makes a record with room for `size` bytes, a constant as the
// verifier wants it, and copies `len` bytes into it.
#define reserve_copy(ctx, len, size)                                                   \
	({                                                                             \
		struct delivery *r =                                                   \
			bpf_ringbuf_reserve(&ticket_deliveries, sizeof(*r) + (size), 0); \
		if (r && bpf_skb_load_bytes(ctx, 0, r + 1, len)) {                     \
			bpf_ringbuf_discard(r, BPF_RB_NO_WAKEUP);                      \
			r = 0;                                                         \
		}                                                                      \
		r;                                                                     \
	})

// copied makes a record with the skb's bytes behind it. The sizes keep the
// part of the ring that is in use small enough for the cache.
INLINE struct delivery *copied(struct __sk_buff *ctx, __u32 size)
{
	if (size == 0 || size > COPY_MAX)
		return 0;
	// Linux 6.12, for one, refuses a length that its verifier cannot see is not
	// 0, and the compiler leaves out what would show it.
	__u64 len = size - 1;
	OPAQUE(len);
	len = (len & (COPY_MAX - 1)) + 1;
	OPAQUE(len);
	if (len <= 256)
		return reserve_copy(ctx, len, 256);
	if (len <= 768)
		return reserve_copy(ctx, len, 768);
	if (len <= 1280)
		return reserve_copy(ctx, len, 1280);
	if (len <= 2048)
		return reserve_copy(ctx, len, 2048);
	if (len <= 4096)
		return reserve_copy(ctx, len, 4096);
	return reserve_copy(ctx, len, COPY_MAX);
}

// ADJUST_MAX is the most bytes that one bpf_skb_adjust_room takes away
// (sk_skb_adjust_room in net/core/filter.c).
#define ADJUST_MAX 0xfff

// cut takes away the first `n` of an skb's `len` bytes, which the socket had
// before: a retransmission may reach back. recv() would repeat them, and the kernel
// would count them as read once more. It fails for want of memory only.
INLINE int cut(struct __sk_buff *ctx, __u32 n, __u32 len)
{
	if ((int)n <= 0)
		return 0;
	if (n >= len)
		return -1; // TCP does not queue such a thing
	for (int i = 0; i <= 0xffff / ADJUST_MAX && n > 0; i++) {
		__u32 step = n < ADJUST_MAX ? n : ADJUST_MAX;
		if (bpf_skb_adjust_room(ctx, -(int)step, 0, 0))
			return -1;
		n -= step;
	}
	return n > 0 ? -1 : 0;
}

INLINE void remember(struct control *ctl, const __u64 *cookie, const struct passed *p)
{
	if (!bpf_map_update_elem(&ticket_passed, cookie, p, BPF_NOEXIST))
		__sync_fetch_and_add(&ctl->passing, 1);
}

INLINE void forget(struct control *ctl, const __u64 *cookie)
{
	if (!bpf_map_delete_elem(&ticket_passed, cookie))
		__sync_fetch_and_add(&ctl->passing, -1);
}

SEC("sk_skb/stream_verdict")
int paste_verdict(struct __sk_buff *ctx)
{
	__u32 zero = 0;
	struct control *ctl = bpf_map_lookup_elem(&ticket_control, &zero);
	if (!ctl)
		return SK_PASS;

	struct sk_buff *skb = bpf_cast_to_kern_ctx(ctx);
	struct tcp_skb_cb *cb = kernel_cast(skb->cb, struct tcp_skb_cb);
	__u32 seq = cb->seq;
	__u8 tcp_flags = cb->tcp_flags;
	__u32 consumed = kernel_cast(skb->sk, struct tcp_sock)->copied_seq;
	__u64 cookie = bpf_get_socket_cookie(ctx);
	__u32 len = ctx->len;

	struct passed *passed = 0;
	if (*(volatile __u32 *)&ctl->passing)
		passed = bpf_map_lookup_elem(&ticket_passed, &cookie);
	if (passed && !passed->lost && (int)(consumed - passed->next) >= 0) {
		forget(ctl, &cookie); // all of it was read
		passed = 0;
	}
	__u32 overlap = (passed ? passed->next : consumed) - seq;
	if ((int)overlap > 0) {
		if (!cut(ctx, overlap, len)) {
			seq += overlap;
			len -= overlap;
		} else if (passed) {
			passed->overlaps++;
		}
	}
	if (passed) {
		passed->next = seq + len;
		if (passed->lost) {
			count(TICKET_STRAY_OVERFLOW);
			return SK_PASS;
		}
	}

	__u32 ticket = ctx->priority;
	__u32 outcome = TICKET_STRAY_NONE;
	struct delivery *d = 0;
	__u32 flags = tcp_flags & TCP_FIN ? DELIVERY_FIN : 0;
	if (ticket & 0xffff) {
		// The record's place comes before the claim, which cannot be undone.
		d = bpf_ringbuf_reserve(&ticket_deliveries, sizeof(*d), 0);
		if (d)
			outcome = claim(ticket, cookie, seq, len);
	}
	if (outcome != TICKET_CLAIMED) {
		ticket = 0;
		if (len > 0 && len <= COPY_MAX) {
			// In one place with what replaces it: older verifiers do not see
			// that two comparisons of len come to the same.
			if (d)
				bpf_ringbuf_discard(d, BPF_RB_NO_WAKEUP);
			d = copied(ctx, len);
			if (d)
				flags |= DELIVERY_DATA;
		}
		if (!d)
			d = bpf_ringbuf_reserve(&ticket_deliveries, sizeof(*d), 0);
	}
	if (!d) {
		struct passed lost = { .first = seq, .next = seq + len, .lost = 1 };
		if (passed)
			*passed = lost;
		else
			remember(ctl, &cookie, &lost);
		__sync_fetch_and_add(&ctl->overflows, 1);
		count(TICKET_STRAY_OVERFLOW);
		return SK_PASS;
	}
	count(outcome);
	if (flags & DELIVERY_DATA)
		count(TICKET_STRAY_COPIED);
	d->cookie = cookie;
	d->ticket = ticket;
	d->seq = seq;
	d->len = len;
	d->consumed = consumed;
	d->flags = flags;

	// A full barrier between publishing the record's place (reserve) and
	// looking whether the reader sleeps; the reader does the same in the
	// other order, so one of the two always sees the other. The first record
	// that wakes the reader takes the wish away: each wake-up is an interrupt.
	__u64 wake = BPF_RB_NO_WAKEUP;
	if (__sync_fetch_and_and(&ctl->sleeping, 0))
		wake = BPF_RB_FORCE_WAKEUP;
	bpf_ringbuf_submit(d, wake);
	if (outcome == TICKET_CLAIMED || flags & DELIVERY_DATA)
		return SK_DROP;
	if (!passed && len > 0) {
		struct passed waits = { .next = seq + len };
		remember(ctl, &cookie, &waits);
	}
	return SK_PASS;
}
