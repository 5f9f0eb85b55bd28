/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The few kernel interfaces that the programs in this directory use. They are
 * spelled out here, and not taken from the system's headers, so that the
 * generated objects depend on nothing but the compiler: whoever regenerates
 * them on another distribution gets the same bytes.
 *
 * Numbers and layouts: include/uapi/linux/bpf.h, if_ether.h, ip.h, ipv6.h and
 * tcp.h. Structures marked CO_RE are kernel internals (include/linux/skbuff.h,
 * include/net/tcp.h); only the named fields are declared and their offsets are
 * relocated at load time.
 */
#ifndef PASTE_BPF_H
#define PASTE_BPF_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
/* The compiler forgets what it knows of a variable: a check that follows stays. */
#define OPAQUE(v) asm volatile("" : "+r"(v))
#define CO_RE __attribute__((preserve_access_index))

/*
 * Tells bpf2go of a type that user space shares and that is in no map. The
 * section is no data section of the loader's, so nothing of it is loaded.
 */
#define SHARED(kind, name) static kind name *shared_##name SEC("shared")

/* BTF-defined maps: the value of an attribute is carried by a type. */
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_XSKMAP = 17,
	BPF_MAP_TYPE_SOCKHASH = 18,
	BPF_MAP_TYPE_RINGBUF = 27,
};

#define BPF_NOEXIST 1
#define BPF_F_NO_PREALLOC (1U << 0)
#define BPF_F_INGRESS (1ULL << 0)
#define BPF_F_MMAPABLE (1U << 10)
#define BPF_RB_NO_WAKEUP (1ULL << 0)
#define BPF_RB_FORCE_WAKEUP (1ULL << 1)

enum { XDP_PASS = 2 };
enum { TCX_NEXT = -1, TCX_DROP = 2 };
enum { SK_DROP = 0, SK_PASS = 1 };

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

/* Up to the last field that is used here; the verifier only looks at offsets. */
struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
};

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*bpf_get_socket_cookie)(void *ctx) = (void *)46;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;
static long (*bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)26;
static long (*bpf_skb_adjust_room)(void *skb, int len_diff, __u32 mode, __u64 flags) = (void *)50;
static long (*bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)51;
static void *(*bpf_ringbuf_reserve)(void *ringbuf, __u64 size, __u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)132;
static void (*bpf_ringbuf_discard)(void *data, __u64 flags) = (void *)133;

#define bpf_htons(x) ((__u16)__builtin_bswap16((__u16)(x)))
#define bpf_ntohs(x) bpf_htons(x)
#define bpf_ntohl(x) __builtin_bswap32(x)
#define bpf_htonl(x) bpf_ntohl(x)
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "only little-endian targets are supported"
#endif

/* Wire formats. */
struct ethhdr {
	__u8 dst[6];
	__u8 src[6];
	__u16 proto;
} __attribute__((packed));

struct vlanhdr {
	__u16 tci;
	__u16 proto;
};

struct iphdr {
	__u8 ihl_version;
	__u8 tos;
	__u16 tot_len;
	__u16 id;
	__u16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__u32 saddr;
	__u32 daddr;
};

struct ipv6hdr {
	__u32 flow;
	__u16 payload_len;
	__u8 nexthdr;
	__u8 hop_limit;
	__u8 saddr[16];
	__u8 daddr[16];
};

struct tcphdr {
	__u16 source;
	__u16 dest;
	__u32 seq;
	__u32 ack_seq;
	__u8 doff_res;
	__u8 flags;
	__u16 window;
	__u16 check;
	__u16 urg_ptr;
};

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88A8
#define IPPROTO_TCP 6
#define IP_MF_OR_OFFSET 0x3FFF /* more-fragments bit and the offset */

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_URG 0x20

/*
 * What user space puts in place of the sender's MAC address when it injects a
 * frame: a prefix (locally administered, unicast) and the claim ticket.
 */
enum injected_mac {
	INJECTED_MAC0 = 0x02,
	INJECTED_MAC1 = 'p',
};

INLINE __u32 ticket_of(const struct ethhdr *eth)
{
	__u32 ticket;
	__builtin_memcpy(&ticket, &eth->src[2], sizeof(ticket));
	return ticket;
}

/* skb->tc_index of an injected packet on its way to the NIC's ingress. */
#define INJECTED 0x7073

/* Kernel internals, relocated. */
struct sock {
} CO_RE;

struct sk_buff {
	struct sock *sk;
	char cb[48];
} CO_RE;

struct tcp_skb_cb {
	__u32 seq;
	__u32 end_seq;
	__u8 tcp_flags;
} CO_RE;

struct tcp_sock {
	__u32 copied_seq;
} CO_RE;

extern void *bpf_cast_to_kern_ctx(void *ctx) __attribute__((section(".ksyms")));
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __attribute__((section(".ksyms")));

/* A pointer to kernel memory of a type, to read through. */
#define kernel_cast(ptr, type) \
	((type *)bpf_rdonly_cast(ptr, __builtin_btf_type_id(*(type *)0, 1 /* in the kernel */)))

#endif
