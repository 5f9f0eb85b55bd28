//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//
// steer: the XDP program on the NIC. TCP segments that carry payload for a
// port of ours go to the AF_XDP socket of their RX queue; everything else
// (handshakes, pure ACKs, FIN, RST, other ports, other protocols, anything
// unusual) continues into the kernel untouched. When in doubt it passes: the
// kernel's own path is always correct, only slower.
#include "paste_bpf.h"

char __license[] SEC("license") = "Dual BSD/GPL";

// What became of a packet. Order is shared with the Go side (SteerCounter).
enum steer_counter {
	STEER_REDIRECT,	     // handed to an AF_XDP socket
	STEER_PASS_NO_SOCKET,// ours, but no AF_XDP socket on that queue
	STEER_PASS_PORT,     // TCP to a port that is not ours
	STEER_PASS_CONTROL,  // ours, without payload (SYN, pure ACK, FIN, RST) or with SYN/RST/URG
	STEER_PASS_FRAGMENT, // IPv4 fragment
	STEER_PASS_OPTIONS,  // IPv4 options or IPv6 extension header
	STEER_PASS_NOT_TCP,  // another transport or network protocol
	STEER_PASS_ADDRESS,  // another host's MAC address, or IPv6 link-local
	STEER_PASS_VLAN,     // a VLAN that the host is not in, or an 802.1ad tag
	STEER_PASS_MALFORMED,// headers or lengths that do not fit the frame
	STEER_COUNTERS,
};

struct nic_config {
	__u8 mac[6]; // frames to other addresses pass
	__u16 reserved;
	__u64 vlans[64]; // bit by VLAN number: the host is in it
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nic_config);
} steer_config SEC(".maps");

// Local ports that are ours; the key is in network byte order.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u16);
	__type(value, __u32);
} steer_ports SEC(".maps");

// AF_XDP sockets by RX queue. A closed socket leaves the map by itself.
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} steer_xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, STEER_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} steer_stats SEC(".maps");

INLINE int count(__u32 counter, int verdict)
{
	__u64 *value = bpf_map_lookup_elem(&steer_stats, &counter);
	if (value)
		(*value)++;
	return verdict;
}

INLINE int link_local(const __u8 *addr)
{
	return addr[0] == 0xfe && (addr[1] & 0xc0) == 0x80;
}

// tcp decides on the segment whose TCP header is at `at` and whose IP packet
// says that `len` bytes of header and payload belong to it.
INLINE int tcp(struct xdp_md *ctx, void *at, void *end, __u32 len)
{
	struct tcphdr *th = at;
	if ((void *)(th + 1) > end)
		return count(STEER_PASS_MALFORMED, XDP_PASS);

	__u16 port = th->dest;
	if (!bpf_map_lookup_elem(&steer_ports, &port))
		return count(STEER_PASS_PORT, XDP_PASS);

	__u32 header = (th->doff_res >> 4) * 4;
	if (header < sizeof(*th) || header > len || at + len > end)
		return count(STEER_PASS_MALFORMED, XDP_PASS);
	if (header == len || th->flags & (TCP_SYN | TCP_RST | TCP_URG))
		return count(STEER_PASS_CONTROL, XDP_PASS);

	int verdict = bpf_redirect_map(&steer_xsks, ctx->rx_queue_index, XDP_PASS);
	return count(verdict == XDP_PASS ? STEER_PASS_NO_SOCKET : STEER_REDIRECT, verdict);
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

	// The receiver rewrites the destination address when it injects the frame,
	// so a frame for another host must never get there.
	__u32 zero = 0;
	struct nic_config *cfg = bpf_map_lookup_elem(&steer_config, &zero);
	if (!cfg)
		return count(STEER_PASS_ADDRESS, XDP_PASS);
	for (int i = 0; i < 6; i++)
		if (eth->dst[i] != cfg->mac[i])
			return count(STEER_PASS_ADDRESS, XDP_PASS);

	// It drops the tag, too. The kernel receives a tagged frame on the VLAN's
	// device, or, if there is none, only to drop it; number 0 means no VLAN.
	if (outer == bpf_htons(ETH_P_8021AD) || !(cfg->vlans[vid >> 6] >> (vid & 63) & 1))
		return count(STEER_PASS_VLAN, XDP_PASS);

	if (proto == bpf_htons(ETH_P_IP)) {
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
		return tcp(ctx, ip + 1, end, len - sizeof(*ip));
	}

	struct ipv6hdr *ip6 = at;
	if ((void *)(ip6 + 1) > end || *(__u8 *)ip6 >> 4 != 6)
		return count(STEER_PASS_MALFORMED, XDP_PASS);
	if (ip6->nexthdr != IPPROTO_TCP)
		return count(STEER_PASS_OPTIONS, XDP_PASS);
	// Link-local addresses mean something on their own interface only, so
	// they cannot come back in through another one: the kernel would not find
	// the socket, which is bound to the interface, and answer with RST.
	if (link_local(ip6->daddr) || link_local(ip6->saddr))
		return count(STEER_PASS_ADDRESS, XDP_PASS);
	return tcp(ctx, ip6 + 1, end, bpf_ntohs(ip6->payload_len));
}
