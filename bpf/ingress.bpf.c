//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
//
// ingress: the program at the ingress of the NIC, and of the VLAN devices on it.
//
// paste_tag lets a segment from user space come in anew, on the NIC. On the way
// the kernel clears skb->priority, and a VLAN device sets it, so the claim ticket
// is put there again from the source MAC address, where it still is. Nothing else
// on the NIC is touched: no packet from outside carries the mark in skb->tc_index.
#include "paste_bpf.h"

char __license[] SEC("license") = "Dual BSD/GPL";

SEC("tcx/ingress")
int paste_ingress(struct __sk_buff *skb)
{
	if (skb->tc_index != INJECTED)
		return TCX_NEXT;
	struct ethhdr *eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return TCX_NEXT;
	skb->priority = ticket_of(eth);
	return TCX_NEXT;
}
