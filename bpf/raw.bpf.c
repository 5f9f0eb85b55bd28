//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//
// raw: the programs of a raw port, which has whole frames in place of connections.
//
// paste_raw, the XDP program on the NIC, hands every frame of a queue that has an
// AF_XDP socket to that socket; frames of other queues continue into the kernel.
//
// paste_to_host and paste_from_host make the host's rings: what a program writes to
// the TAP device comes in on the NIC, and what the kernel sends out by the NIC goes
// to the TAP device in its stead, for the program to read.
#include "paste_bpf.h"

char __license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1); /* set when it is loaded: one for each queue */
	__type(key, __u32);
	__type(value, __u32);
} raw_xsks SEC(".maps");

/* xdp.frags: a frame may be in several buffers. */
SEC("xdp.frags")
int paste_raw(struct xdp_md *ctx)
{
	return bpf_redirect_map(&raw_xsks, ctx->rx_queue_index, XDP_PASS);
}

/* Interface indices, set when the programs are loaded. */
const volatile __u32 host_nic;
const volatile __u32 host_tap;

SEC("tcx/ingress")
int paste_to_host(struct __sk_buff *skb)
{
	return bpf_redirect(host_nic, BPF_F_INGRESS);
}

SEC("tcx/egress")
int paste_from_host(struct __sk_buff *skb)
{
	return bpf_redirect(host_tap, 0);
}
