/*
 * What the tests need of netmap's and PASTE's C interface, written from its
 * documentation: netmap(4), and the layouts that docs/netmap.md names.
 */
#ifndef NM_H
#define NM_H

#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <sys/types.h>

struct nm_slot {
	uint32_t buf_idx;
	uint16_t len;
	uint16_t flags;
	uint64_t ptr;
};

struct nm_ring {
	int64_t buf_ofs;
	uint32_t num_slots;
	uint32_t buf_size;
	uint16_t ringid;
	uint16_t dir; /* 0: receive, 1: transmit */
	uint32_t head, cur, tail;
	uint32_t flags;
	struct timeval ts;
	uint64_t offset_mask;
	uint64_t buf_align;
	uint8_t sem[128] __attribute__((aligned(128)));
	struct nm_slot slot[];
};

struct nm_if {
	char name[16];
	uint32_t version, flags;
	uint32_t tx_rings, rx_rings;
	uint32_t bufs_head;
	uint32_t host_tx_rings, host_rx_rings;
	uint32_t spare[3];
	ssize_t ring_ofs[];
};

#define NM_API 14

struct nm_header {
	uint16_t version;
	uint16_t reqtype;
	uint32_t reserved;
	char name[64];
	uint64_t options;
	uint64_t body;
};

struct nm_option {
	uint64_t next;
	uint32_t reqtype;
	uint32_t status;
	uint64_t size;
};

struct nm_register {
	uint64_t offset, memsize;
	uint32_t tx_slots, rx_slots;
	uint16_t tx_rings, rx_rings, host_tx_rings, host_rx_rings;
	uint16_t mem_id, ringid;
	uint32_t mode;
	uint32_t extra_bufs;
	uint64_t flags;
};

struct nm_port_info {
	uint64_t memsize;
	uint32_t tx_slots, rx_slots;
	uint16_t tx_rings, rx_rings, host_tx_rings, host_rx_rings;
	uint16_t mem_id;
	uint16_t pad[3];
};

struct nm_attach {
	struct nm_register reg;
	uint32_t port_index;
	uint32_t pad;
};

struct nm_pools_info {
	uint64_t memsize;
	uint16_t mem_id;
	uint16_t pad[3];
	uint64_t if_offset;
	uint32_t if_total, if_size;
	uint64_t ring_offset;
	uint32_t ring_total, ring_size;
	uint64_t buf_offset;
	uint32_t buf_total, buf_size;
};

struct nm_extmem {
	struct nm_option opt;
	uint64_t usrptr;
	struct nm_pools_info info;
};

struct nm_fd_reg {
	uint32_t fd;
	uint32_t pad;
};

struct nm_legacy {
	char name[16];
	uint32_t version;
	uint32_t offset, memsize;
	uint32_t tx_slots, rx_slots;
	uint16_t tx_rings, rx_rings;
	uint16_t ringid;
	uint16_t cmd;
	uint16_t arg1, arg2;
	uint32_t arg3;
	uint32_t flags;
	uint32_t spare;
};

enum {
	REQ_REGISTER = 1,
	REQ_PORT_INFO,
	REQ_VALE_ATTACH,
	REQ_VALE_DETACH,
	REQ_VALE_LIST,
	REQ_HDR_SET,
	REQ_HDR_GET,
	REQ_VALE_NEWIF,
	REQ_VALE_DELIF,
	REQ_POLLING_ENABLE,
	REQ_POLLING_DISABLE,
	REQ_POOLS_INFO,
	REQ_KLOOP_START,
	REQ_KLOOP_STOP,
	REQ_CSB_ENABLE,
	REQ_PST_ATTACH,
	REQ_PST_DETACH,
	REQ_PST_FD_REG,
};

enum { OPT_EXTMEM = 1, OPT_EVENTFDS, OPT_CSB, OPT_KLOOP_MODE, OPT_OFFSETS, OPT_MAX };
enum { MODE_ALL = 1, MODE_SW, MODE_NIC_SW, MODE_ONE, MODE_PIPE_MASTER, MODE_PIPE_SLAVE, MODE_NULL, MODE_ONE_SW };

#define FLAG_MONITOR_TX 0x100
#define FLAG_EXCLUSIVE 0x800
#define FLAG_RX_ONLY 0x2000
#define FLAG_TX_ONLY 0x4000
#define FLAG_NO_TX_POLL 0x20000
#define SLOT_BUF_CHANGED 1

#define NIOCGINFO _IOWR('i', 145, struct nm_legacy)
#define NIOCREGIF _IOWR('i', 146, struct nm_legacy)
#define NIOCTXSYNC _IO('i', 148)
#define NIOCRXSYNC _IO('i', 149)
#define NIOCCTRL _IOWR('i', 151, struct nm_header)

#define AT(type, base, off) ((type *)(void *)((char *)(base) + (off)))
#define TX_RING(nif, i) AT(struct nm_ring, nif, (nif)->ring_ofs[i])
#define RX_RING(nif, i) AT(struct nm_ring, nif, (nif)->ring_ofs[(i) + (nif)->tx_rings + (nif)->host_tx_rings])
#define BUF(ring, idx) ((char *)(ring) + (ring)->buf_ofs + (size_t)(idx) * (ring)->buf_size)

static inline uint32_t nm_next(const struct nm_ring *r, uint32_t i)
{
	return i + 1 == r->num_slots ? 0 : i + 1;
}

static inline int nm_fd(const struct nm_slot *s) { return (int)(s->ptr >> 8 & 0xffffffff); }
static inline unsigned nm_doff(const struct nm_slot *s) { return s->ptr >> 40 & 0x3ff; }
static inline void nm_set(struct nm_slot *s, int fd, unsigned doff)
{
	s->ptr = (uint64_t)(uint32_t)fd << 8 | (uint64_t)(doff & 0x3ff) << 40;
}

/* An open port. */
struct nm_port {
	int fd;
	char *mem;
	struct nm_if *nif;
	struct nm_register reg;
};

void die(const char *what);
/* nm_request sends one request. */
int nm_request(int fd, int type, const char *name, void *body);
/* nm_open opens a port, or dies. */
struct nm_port nm_open(const char *name, const struct nm_register *reg);
void nm_close(struct nm_port *p);

/* expect holds the result of a call to the error number that it should have, and
 * expect_true a condition. nm_result is what main returns, after a line about all. */
void expect(const char *what, int result, int want);
void expect_true(const char *what, int yes);
int nm_result(void);

/* device opens /dev/netmap. The others send a request on a file of its own: on_new any,
 * registering NETMAP_REQ_REGISTER, nm_raw one with all its fields. */
int device(void);
int on_new(int type, const char *name, void *body);
int registering(const char *name, struct nm_register reg);
int nm_raw(struct nm_header h);

#endif
