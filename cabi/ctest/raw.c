/*
 * Ports of whole frames, bound in all the ways that there are and some that there are
 * not: a NIC, its host's rings, pipes, null ports, memory of the program's.
 *
 *	raw NIC
 */
#include "nm.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char *nic;

static void registers(void)
{
	struct nm_register all = {.mode = MODE_ALL}, bad;
	struct nm_port p, q;

	expect("mode 0", registering(nic, (bad = all, bad.mode = 0, bad)), EINVAL);
	expect("a mode that there is not", registering(nic, (bad = all, bad.mode = 77, bad)), EINVAL);
	expect("a ring that there is not", registering(nic, (bad = all, bad.mode = MODE_ONE, bad.ringid = 99, bad)), EINVAL);
	expect("more than one pair of host rings", registering(nic, (bad = all, bad.mode = MODE_SW, bad.host_rx_rings = 2, bad)), EOPNOTSUPP);
	expect("a memory of ports of connections", registering(nic, (bad = all, bad.mem_id = 2, bad)), EINVAL);
	expect("a slot too few", registering(nic, (bad = all, bad.rx_slots = 1, bad)), EINVAL);
	expect("a name that looks like a ring", registering("x-0", all), ENXIO);
	expect("host rings of a switch's port", registering("vale0:x", (bad = all, bad.mode = MODE_SW, bad)), EINVAL);

	p = nm_open(nic, &(struct nm_register){.mode = MODE_ALL, .extra_bufs = 3});
	expect_true("what it tells", p.reg.tx_rings >= 1 && p.reg.rx_rings == p.reg.tx_rings && p.reg.tx_slots == 1024 && p.reg.mem_id == 1 && p.reg.extra_bufs == 3);
	expect_true("its rings", TX_RING(p.nif, 0)->dir == 1 && RX_RING(p.nif, 0)->dir == 0 && TX_RING(p.nif, 0)->num_slots == 1024);
	expect_true("no host rings", p.nif->ring_ofs[p.nif->tx_rings] == 0);
	expect("another file with the same rings", registering(nic, all), EBUSY);
	q = nm_open(nic, &(struct nm_register){.mode = MODE_SW});
	expect_true("the host's rings alone", q.nif->ring_ofs[0] == 0 && q.nif->ring_ofs[q.nif->tx_rings] != 0);
	expect_true("in the same memory", q.mem == p.mem);
	nm_close(&q);
	nm_close(&p);
	p = nm_open(nic, &(struct nm_register){.mode = MODE_NIC_SW, .flags = FLAG_TX_ONLY});
	expect_true("no receive rings", p.nif->ring_ofs[p.nif->tx_rings] != 0 && p.nif->ring_ofs[p.nif->tx_rings + 1] == 0);
	nm_close(&p);
}

static void infos(void)
{
	struct nm_port_info i = {0};
	struct nm_pools_info m = {0};
	struct nm_legacy l = {.version = 14, .arg3 = 7};
	struct nm_port p;
	int fd = device();

	expect("PORT_INFO_GET", on_new(REQ_PORT_INFO, nic, &i), 0);
	expect_true("what it tells", i.memsize && i.tx_slots == 1024 && i.rx_rings >= 1 && i.host_rx_rings == 1 && i.mem_id == 1);
	expect("POOLS_INFO_GET", on_new(REQ_POOLS_INFO, nic, &m), 0);
	expect_true("what it tells", m.memsize && m.if_total && m.ring_total && m.buf_total > 1000 && m.buf_size == 2048);
	p = nm_open(nic, &(struct nm_register){.mode = MODE_ALL});
	m.mem_id = 0;
	expect("POOLS_INFO_GET of a port that is open", on_new(REQ_POOLS_INFO, nic, &m), 0);
	expect_true("where the buffers are", p.mem + m.buf_offset == BUF(TX_RING(p.nif, 0), 0));
	nm_close(&p);
	strncpy(l.name, nic, sizeof(l.name) - 1);
	expect("NIOCREGIF", ioctl(fd, NIOCREGIF, &l), 0);
	expect_true("what it tells", l.memsize && l.rx_rings >= 1 && l.arg2 == 1 && l.arg3 == 7);
	close(fd);
}

static void pipes(void)
{
	struct nm_port a, b;
	struct nm_ring *tx, *rx;
	struct pollfd f;

	expect("a pipe with host rings", registering("x{1", (struct nm_register){.mode = MODE_NIC_SW}), EINVAL);
	a = nm_open("x{1", &(struct nm_register){.mode = MODE_ALL});
	b = nm_open("x}1", &(struct nm_register){.mode = MODE_ALL});
	expect("a third end", registering("x}1", (struct nm_register){.mode = MODE_ALL}), EBUSY);
	tx = TX_RING(a.nif, 0);
	rx = RX_RING(b.nif, 0);
	strcpy(BUF(tx, tx->slot[0].buf_idx), "by the pipe");
	tx->slot[0].len = 60;
	tx->head = tx->cur = 1;
	f = (struct pollfd){.fd = b.fd, .events = POLLIN};
	expect_true("nothing is there before txsync", poll(&f, 1, 0) == 0);
	expect("txsync", ioctl(a.fd, NIOCTXSYNC, NULL), 0);
	expect_true("then it is", poll(&f, 1, 10000) == 1 && f.revents == POLLIN && rx->tail == 1);
	expect_true("as it was sent", rx->slot[0].len == 60 && !strcmp(BUF(rx, rx->slot[0].buf_idx), "by the pipe"));
	nm_close(&a);
	nm_close(&b);
}

static void switches(void)
{
	struct nm_port a = nm_open("vale0:a", &(struct nm_register){.mode = MODE_ALL}), b = nm_open("vale0:b", &(struct nm_register){.mode = MODE_ALL});
	struct nm_ring *tx = TX_RING(a.nif, 0), *rx = RX_RING(b.nif, 0);
	struct nm_header h = {.version = NM_API, .reqtype = REQ_VALE_LIST};
	struct nm_attach at = {.reg = {.mode = MODE_ALL}};
	struct { uint16_t sw, pad; uint32_t port; } list = {0};
	struct pollfd f = {.fd = b.fd, .events = POLLIN};
	uint64_t len = 12;
	char name[64];

	memset(BUF(tx, tx->slot[0].buf_idx), 0xff, 60);
	BUF(tx, tx->slot[0].buf_idx)[6] = 2;
	tx->slot[0].len = 60;
	tx->head = tx->cur = 1;
	expect("txsync", ioctl(a.fd, NIOCTXSYNC, NULL), 0);
	expect_true("a frame by the switch", poll(&f, 1, 10000) == 1 && rx->tail == 1 && rx->slot[0].len == 60 && BUF(rx, rx->slot[0].buf_idx)[6] == 2);
	expect("a port that somebody has", registering("vale0:b", (struct nm_register){.mode = MODE_ALL}), EBUSY);

	h.body = (uintptr_t)&list;
	list.port = 1;
	expect("VALE_LIST", nm_raw(h), 0);
	expect_true("the second port", list.sw == 0 && list.port == 1);
	list.port = 2;
	expect("VALE_LIST behind the last", nm_raw(h), ENOENT);
	expect("VALE_LIST of a port", on_new(REQ_VALE_LIST, "vale0:b", &list), 0);
	expect_true("its place", list.sw == 0 && list.port == 1);

	expect("PORT_HDR_GET", on_new(REQ_HDR_GET, "vale0:a", &len), 0);
	expect_true("no header", len == 0);
	expect("PORT_HDR_SET of none", on_new(REQ_HDR_SET, "vale0:a", &len), 0);
	len = 12;
	expect("PORT_HDR_SET", on_new(REQ_HDR_SET, "vale0:a", &len), EOPNOTSUPP);
	len = 11;
	expect("PORT_HDR_SET of 11 bytes", on_new(REQ_HDR_SET, "vale0:a", &len), EINVAL);

	snprintf(name, sizeof(name), "vale0:%s", nic);
	expect("VALE_ATTACH", on_new(REQ_VALE_ATTACH, name, &at), 0);
	expect("VALE_ATTACH once more", on_new(REQ_VALE_ATTACH, name, &at), EBUSY);
	expect("a NIC that the switch has", registering(nic, (struct nm_register){.mode = MODE_ALL}), EBUSY);
	expect("VALE_DETACH", on_new(REQ_VALE_DETACH, name, &len), 0);
	expect("VALE_DETACH once more", on_new(REQ_VALE_DETACH, name, &len), ENXIO);
	expect("VALE_DETACH of a port of the program's", on_new(REQ_VALE_DETACH, "vale0:a", &len), ENXIO);
	nm_close(&a);
	nm_close(&b);
}

static void nulls(void)
{
	struct nm_port p = nm_open("anything", &(struct nm_register){.mode = MODE_NULL, .tx_rings = 3, .rx_rings = 3, .tx_slots = 256, .rx_slots = 100});

	expect_true("a null port", p.reg.tx_rings == 3 && p.reg.rx_rings == 3 && p.reg.tx_slots == 256 && p.reg.rx_slots == 100);
	expect("txsync", ioctl(p.fd, NIOCTXSYNC, NULL), 0);
	expect("rxsync", ioctl(p.fd, NIOCRXSYNC, NULL), 0);
	nm_close(&p);
}

static void extmem(void)
{
	size_t size = 16 << 20;
	char *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct nm_register reg = {.mode = MODE_ALL};
	struct nm_extmem e = {.opt = {.reqtype = OPT_EXTMEM}, .usrptr = (uintptr_t)mem, .info = {.memsize = size, .buf_size = 2048}};
	struct nm_header h = {.version = NM_API, .reqtype = REQ_REGISTER, .body = (uintptr_t)&reg, .options = (uintptr_t)&e};
	struct nm_if *nif;
	int fd = device();

	strncpy(h.name, nic, sizeof(h.name) - 1);
	expect("memory of the program's", ioctl(fd, NIOCCTRL, &h), 0);
	nif = AT(struct nm_if, mem, reg.offset);
	expect_true("all of it in that memory", reg.offset < size && (char *)RX_RING(nif, 0) >= mem && (char *)RX_RING(nif, 0) < mem + size &&
		BUF(RX_RING(nif, 0), RX_RING(nif, 0)->slot[0].buf_idx) < mem + size);
	expect("unmap while the port has it", munmap(mem, size), 0);
	expect("rxsync", ioctl(fd, NIOCRXSYNC, NULL), 0);
	expect("close", close(fd), 0);
	expect("unmapped", msync(mem, 4096, MS_ASYNC), ENOMEM);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	nic = argv[1];
	registers();
	infos();
	pipes();
	switches();
	nulls();
	extmem();
	return nm_result();
}
