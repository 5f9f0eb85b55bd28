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
// without a valid ticket are copied into the ring buffer if they are
// few; else they stay in the kernel and user space is told to recv() them.
// Every byte is in exactly one of these places.
#include "ticket.h"

char __license[] SEC("license") = "Dual BSD/GPL";

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
		return TICKET_NO_TICKET;
	struct ticket *t = bpf_map_lookup_elem(&ticket_table, &slot);
	if (!t)
		return TICKET_NO_TICKET;

	__u32 mine = (ticket >> 16) << 2 | TICKET_IN_FLIGHT;
	if (*(volatile __u32 *)&t->state != mine || t->cookie != cookie)
		return TICKET_STALE;
	__u32 skip = seq - t->seq;
	if (skip > t->len || len > t->len - skip)
		return TICKET_RANGE;
	__u32 delivered = (ticket >> 16) << 2 | TICKET_DELIVERED;
	if (__sync_val_compare_and_swap(&t->state, mine, delivered) != mine)
		return TICKET_STALE;
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

// unread returns what is known of a socket with bytes that wait for recv(), or 0.
INLINE struct passed *unread(struct control *ctl, const __u64 *cookie, __u32 consumed)
{
	if (!*(volatile __u32 *)&ctl->passing)
		return 0;
	struct passed *p = bpf_map_lookup_elem(&ticket_passed, cookie);
	if (p && !p->lost && (int)(consumed - p->next) >= 0) {
		forget(ctl, cookie); // all of it was read
		return 0;
	}
	return p;
}

// cut_repeated takes away the first `overlap` of an skb's `len` bytes, if there are
// any, and returns how many it took.
INLINE __u32 cut_repeated(struct __sk_buff *ctx, struct passed *p, __u32 overlap, __u32 len)
{
	if ((int)overlap <= 0)
		return 0;
	if (!cut(ctx, overlap, len))
		return overlap;
	if (p)
		p->overlaps++;
	return 0;
}

// lose notes that a record could not be written, or was not wanted.
INLINE void lose(struct control *ctl, const __u64 *cookie, struct passed *p, __u32 seq, __u32 len)
{
	struct passed lost = { .first = seq, .next = seq + len, .lost = 1 };
	if (p)
		*p = lost;
	else
		remember(ctl, cookie, &lost);
	__sync_fetch_and_add(&ctl->overflows, 1);
	count(TICKET_OVERFLOW);
}

// stopped says whether user space wants no more records of a socket.
INLINE int stopped(struct control *ctl, const __u64 *cookie)
{
	return *(volatile __u32 *)&ctl->stopping && bpf_map_lookup_elem(&ticket_stopped, cookie);
}

// record makes the record for an skb, with its ticket, or its bytes, if that can be.
// It returns 0 where there is no room.
INLINE struct delivery *record(struct __sk_buff *ctx, __u64 cookie, __u32 seq, __u32 len, __u32 *ticket,
			       __u32 *flags, __u32 *outcome)
{
	struct delivery *d = 0;
	if (*ticket & 0xffff) {
		// The record's place comes before the claim, which cannot be undone.
		d = bpf_ringbuf_reserve(&ticket_deliveries, sizeof(*d), 0);
		if (d)
			*outcome = claim(*ticket, cookie, seq, len);
	}
	if (*outcome == TICKET_CLAIMED)
		return d;
	*ticket = 0;
	if (len > 0 && len <= COPY_MAX) {
		// In one place with what replaces it: older verifiers do not see
		// that two comparisons of len come to the same.
		if (d)
			bpf_ringbuf_discard(d, BPF_RB_NO_WAKEUP);
		d = copied(ctx, len);
		if (d)
			*flags |= DELIVERY_DATA;
	}
	return d ? d : bpf_ringbuf_reserve(&ticket_deliveries, sizeof(*d), 0);
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

	struct passed *passed = unread(ctl, &cookie, consumed);
	__u32 repeated = cut_repeated(ctx, passed, (passed ? passed->next : consumed) - seq, len);
	seq += repeated;
	len -= repeated;
	if (passed) {
		passed->next = seq + len;
		if (passed->lost) {
			count(TICKET_OVERFLOW);
			return SK_PASS;
		}
	}

	__u32 ticket = ctx->priority, outcome = TICKET_NO_TICKET;
	__u32 flags = tcp_flags & TCP_FIN ? DELIVERY_FIN : 0;
	struct delivery *d = 0;
	if (!stopped(ctl, &cookie))
		d = record(ctx, cookie, seq, len, &ticket, &flags, &outcome);
	if (!d) {
		lose(ctl, &cookie, passed, seq, len);
		return SK_PASS;
	}
	count(outcome);
	if (flags & DELIVERY_DATA)
		count(TICKET_COPIED);
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
