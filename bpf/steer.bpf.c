//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//
// steer: the XDP program on the NIC. TCP segments that carry payload for a
// registered connection go to the AF_XDP socket of their RX queue; everything
// else (handshakes, pure ACKs, FIN, RST, other connections, other protocols,
// anything unusual) continues into the kernel untouched. When in doubt it passes:
// the kernel's own path is always correct, only slower.
#include "paste_bpf.h"

char __license[] SEC("license") = "Dual BSD/GPL";

// What became of a packet.
enum steer_counter {
	STEER_REDIRECT,	     // handed to an AF_XDP socket
	STEER_PASS_NO_SOCKET,// ours, but no AF_XDP socket on that queue
	STEER_PASS_PORT,     // TCP to a port that is not ours
	STEER_PASS_CONTROL,  // ours, without payload (SYN, pure ACK, FIN, RST) or with SYN/RST/URG
	STEER_PASS_FRAGMENT, // IPv4 fragment
	STEER_PASS_OPTIONS,  // IPv4 options or IPv6 extension header
	STEER_PASS_NOT_TCP,  // another transport or network protocol
	STEER_PASS_ADDRESS,  // another host's MAC address
	STEER_PASS_VLAN,     // not the connection's VLAN, or an 802.1ad tag
	STEER_PASS_MALFORMED,// headers or lengths that do not fit the frame
	STEER_PASS_SMALL,    // ours, below the port's copybreak
	STEER_PASS_LARGE,    // ours, and more than a packet buffer takes
	STEER_PASS_INJECTED, // comes from user space: generic XDP sees it once more
	STEER_PASS_RING,     // on a queue of another ring than its connection's
	STEER_PASS_CONN,     // to a port that is ours, of a connection that is not
	STEER_COUNTERS,
};

struct nic_config {
	__u8 mac[6]; // frames to other addresses pass
	__u16 room; // larger frames pass: no packet buffer need take them
	__u64 vlans[64]; // bit by VLAN number: the host is in it
	__u32 rings; // queue j belongs to ring j modulo this
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nic_config);
} steer_config SEC(".maps");

// Local ports that are ours; the key is in network byte order, the value the
// copybreak: payloads below it are not worth the way through user space. The
// kernel receives them as ever, and the verdict program copies them.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u16);
	__type(value, __u32);
} steer_ports SEC(".maps");

// Connections that are registered, as their addresses and ports stand in a
// received packet. Only what is in here is steered: a port may be shared with
// other sockets, on other local addresses, in other network namespaces behind
// the same MAC address, or on hosts that this one forwards to.
struct conn_key {
	__u32 peer[4]; // IPv4: mapped into IPv6 (::ffff:a.b.c.d)
	__u32 local[4];
	__u32 ports; // the first four bytes of the TCP header
};

struct conn_place {
	__u16 vlan; // number of the one that it is on, 0: none
	__u16 ring; // that it is registered with
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 18);
	__type(key, struct conn_key);
	__type(value, struct conn_place);
} steer_conns SEC(".maps");

// AF_XDP sockets by RX queue. A closed socket leaves the map by itself.
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} steer_xsks SEC(".maps");

// A small segment must not overtake an earlier one of its connection that is
// still on its way through user space: TCP would think of loss. So the last
// byte that went that way is noted here, and user space notes it too when it
// has injected it; while the two differ everything is steered. Connections that
// share an entry are steered now and then without need, no more.
enum steer_limit {
	FLOW_BITS = 13,
	FLOWS = 1 << FLOW_BITS,
};
SHARED(enum, steer_limit);
SHARED(enum, injected_mac);

struct flow {
	__u32 steered;	// sequence number after the last segment, written here
	__u32 injected; // the same, written by user space
	__u32 held;	// connections that user space holds back: nothing passes
	__u32 reserved;
};

// Shared with user space through mmap.
struct steer_order {
	__u32 all[256]; // by RX queue: user space is behind, let nothing pass it
	struct flow flows[FLOWS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct steer_order);
} steer_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STEER_COUNTERS);
	__type(key, enum steer_counter);
	__type(value, __u64);
} steer_stats SEC(".maps");

INLINE int count(enum steer_counter counter, int verdict)
{
	__u64 *value = bpf_map_lookup_elem(&steer_stats, &counter);
	if (value)
		(*value)++;
	return verdict;
}

INLINE __u32 mix(__u32 h, __u32 word)
{
	return (h ^ word) * 0x9e3779b1; // 2^32 divided by the golden ratio
}

// tcp decides on the segment whose TCP header is at `at` and whose IP packet
// says that `len` bytes of header and payload belong to it. key has the packet's
// addresses, addrs a hash of them, vid is the number in the frame's VLAN tag.
INLINE int tcp(struct xdp_md *ctx, void *at, void *end, __u32 len, struct conn_key *key, __u32 addrs,
	       __u32 vid, const struct nic_config *cfg)
{
	struct tcphdr *th = at;
	if ((void *)(th + 1) > end)
		return count(STEER_PASS_MALFORMED, XDP_PASS);

	__u16 port = th->dest;
	__u32 *copybreak = bpf_map_lookup_elem(&steer_ports, &port);
	if (!copybreak)
		return count(STEER_PASS_PORT, XDP_PASS);

	__u32 header = (th->doff_res >> 4) * 4;
	if (header < sizeof(*th) || header > len || at + len > end)
		return count(STEER_PASS_MALFORMED, XDP_PASS);
	if (header == len || th->flags & (TCP_SYN | TCP_RST | TCP_URG))
		return count(STEER_PASS_CONTROL, XDP_PASS);
	key->ports = *(__u32 *)th;
	struct conn_place *place = bpf_map_lookup_elem(&steer_conns, key);
	if (!place)
		return count(STEER_PASS_CONN, XDP_PASS);
	// A NIC may take the tag off and tell the kernel alone. The frame would come in
	// anew on the NIC, and not on the VLAN's device.
	if (place->vlan != vid)
		return count(STEER_PASS_VLAN, XDP_PASS);
	// Another ring could only inject it, without a ticket.
	__u32 queue = ctx->rx_queue_index;
	if (cfg->rings > 1 && queue % cfg->rings != place->ring)
		return count(STEER_PASS_RING, XDP_PASS);
	// In generic mode a frame may be what a virtual interface did not cut into
	// segments. AF_XDP would drop it, as it does not fit a buffer.
	if ((void *)(long)ctx->data + cfg->room < end)
		return count(STEER_PASS_LARGE, XDP_PASS);

	__u32 zero = 0;
	struct steer_order *order = bpf_map_lookup_elem(&steer_flows, &zero);
	if (!order)
		return count(STEER_PASS_NO_SOCKET, XDP_PASS);
	struct flow *f = &order->flows[mix(addrs, key->ports) / (0x100000000 / FLOWS)];
	if (len - header < *copybreak && !*(volatile __u32 *)&order->all[queue & 255] &&
	    f->steered == *(volatile __u32 *)&f->injected && !*(volatile __u32 *)&f->held)
		return count(STEER_PASS_SMALL, XDP_PASS);

	int verdict = bpf_redirect_map(&steer_xsks, queue, XDP_PASS);
	if (verdict == XDP_PASS)
		return count(STEER_PASS_NO_SOCKET, XDP_PASS);
	f->steered = bpf_ntohl(th->seq) + len - header;
	return count(STEER_REDIRECT, verdict);
}

INLINE int ip4(struct xdp_md *ctx, void *at, void *end, __u32 vid, const struct nic_config *cfg)
{
	struct iphdr *ip = at;
	if ((void *)(ip + 1) > end)
		return count(STEER_PASS_MALFORMED, XDP_PASS);
	if (ip->protocol != IPPROTO_TCP)
		return count(STEER_PASS_NOT_TCP, XDP_PASS);
	if (ip->ihl_version != 0x45)
		return count(STEER_PASS_OPTIONS, XDP_PASS);
	if (ip->frag_off & bpf_htons(IP_MF_OR_OFFSET))
		return count(STEER_PASS_FRAGMENT, XDP_PASS);
	__u32 len = bpf_ntohs(ip->tot_len);
	if (len < sizeof(*ip))
		return count(STEER_PASS_MALFORMED, XDP_PASS);
	struct conn_key key = {};
	key.peer[2] = key.local[2] = bpf_htonl(0xffff);
	key.peer[3] = ip->saddr;
	key.local[3] = ip->daddr;
	return tcp(ctx, ip + 1, end, len - sizeof(*ip), &key, mix(mix(0, ip->saddr), ip->daddr), vid, cfg);
}

INLINE int ip6(struct xdp_md *ctx, void *at, void *end, __u32 vid, const struct nic_config *cfg)
{
	struct ipv6hdr *ip = at;
	if ((void *)(ip + 1) > end || *(__u8 *)ip >> 4 != 6)
		return count(STEER_PASS_MALFORMED, XDP_PASS);
	if (ip->nexthdr != IPPROTO_TCP)
		return count(STEER_PASS_OPTIONS, XDP_PASS);
	struct conn_key key = {};
	__u32 addrs = 0, *word = (__u32 *)ip->saddr;
	for (int i = 0; i < 8; i++) { // the destination follows
		addrs = mix(addrs, word[i]);
		(i < 4 ? key.peer : key.local)[i & 3] = word[i];
	}
	return tcp(ctx, ip + 1, end, bpf_ntohs(ip->payload_len), &key, addrs, vid, cfg);
}

SEC("xdp")
int paste_steer(struct xdp_md *ctx)
{
	void *at = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;

	struct ethhdr *eth = at;
	if ((void *)(eth + 1) > end)
		return count(STEER_PASS_MALFORMED, XDP_PASS);
	at = eth + 1;
	__u16 proto = eth->proto;
	__u16 outer = proto;
	__u32 vid = 0;
	if (proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD)) {
		struct vlanhdr *vlan = at;
		if ((void *)(vlan + 1) > end)
			return count(STEER_PASS_MALFORMED, XDP_PASS);
		proto = vlan->proto;
		vid = bpf_ntohs(vlan->tci) & 0xfff;
		at = vlan + 1;
	}
	if (proto != bpf_htons(ETH_P_IP) && proto != bpf_htons(ETH_P_IPV6))
		return count(STEER_PASS_NOT_TCP, XDP_PASS);

	if (eth->src[0] == INJECTED_MAC0 && eth->src[1] == INJECTED_MAC1)
		return count(STEER_PASS_INJECTED, XDP_PASS);

	// Where injection is on a device of its own, its address replaces the
	// destination, so a frame for another host must never get there.
	__u32 zero = 0;
	struct nic_config *cfg = bpf_map_lookup_elem(&steer_config, &zero);
	if (!cfg)
		return count(STEER_PASS_ADDRESS, XDP_PASS);
	for (int i = 0; i < 6; i++)
		if (eth->dst[i] != cfg->mac[i])
			return count(STEER_PASS_ADDRESS, XDP_PASS);

	// There it drops the tag, too. The kernel receives a tagged frame on the VLAN's
	// device, or, if there is none, only to drop it; number 0 means no VLAN.
	OPAQUE(vid); // the verifier of Linux 6.12 has lost its bound on the way
	vid &= 0xfff;
	if (outer == bpf_htons(ETH_P_8021AD) || !(cfg->vlans[vid >> 6] >> (vid & 63) & 1))
		return count(STEER_PASS_VLAN, XDP_PASS);

	return proto == bpf_htons(ETH_P_IP) ? ip4(ctx, at, end, vid, cfg) : ip6(ctx, at, end, vid, cfg);
}
