/*
 * Requests to /dev/netmap, right and wrong: what is answered must be what the
 * documentation of netmap and PASTE says. ports.c has those that bind ports. Both print
 * a line for each that is not as it should be, and end with 0 if there is none.
 */
#include "nm.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static void headers(void)
{
	struct nm_register reg = {.mode = MODE_ALL};
	struct nm_header h = {.version = NM_API, .reqtype = REQ_REGISTER, .name = "pst:0", .body = (uintptr_t)&reg}, bad;
	int fd;

	expect("a version of before", nm_raw((bad = h, bad.version = 13, bad)), EINVAL);
	expect("a version of after", nm_raw((bad = h, bad.version = 16, bad)), EINVAL);
	expect("the newest version", nm_raw((bad = h, bad.version = 15, bad)), 0);
	expect("a reserved field", nm_raw((bad = h, bad.reserved = 1, bad)), EINVAL);
	expect("no body", nm_raw((bad = h, bad.body = 0, bad)), EINVAL);
	expect("a body too much", nm_raw((bad = h, bad.reqtype = REQ_VALE_DELIF, bad)), EINVAL);
	expect("a body nowhere", nm_raw((bad = h, bad.body = 16, bad)), EFAULT);
	expect("an unknown request", nm_raw((bad = h, bad.reqtype = 200, bad.body = 0, bad)), EINVAL);
	expect("request 0", nm_raw((bad = h, bad.reqtype = 0, bad.body = 0, bad)), EINVAL);
	fd = device();
	expect("a header nowhere", ioctl(fd, NIOCCTRL, (void *)16), EFAULT);
	expect("another ioctl", ioctl(fd, _IO('i', 99), NULL), EOPNOTSUPP);
	expect("txsync of an unbound file", ioctl(fd, NIOCTXSYNC, NULL), ENXIO);
	expect("rxsync of an unbound file", ioctl(fd, NIOCRXSYNC, NULL), ENXIO);
	expect("mmap of an unbound file", mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0, EINVAL);
	{
		struct pollfd p = {.fd = fd, .events = POLLIN};

		expect_true("poll of an unbound file", poll(&p, 1, 0) == 1 && p.revents == POLLERR);
	}
	expect("close", close(fd), 0);
	expect("closed", ioctl(fd, NIOCTXSYNC, NULL), EBADF);
}

static int with_options(void *first)
{
	struct nm_register reg = {.mode = MODE_ALL};
	struct nm_header h = {.version = NM_API, .reqtype = REQ_REGISTER, .name = "pst:0", .body = (uintptr_t)&reg};

	h.options = (uintptr_t)first;
	return nm_raw(h);
}

static void options(void)
{
	struct nm_option a = {.reqtype = 1234}, b = {.reqtype = OPT_MAX};
	struct { struct nm_option o; uint64_t rest[8]; } x = {{.reqtype = OPT_OFFSETS}, {0}}, y = {{.reqtype = OPT_OFFSETS}, {0}};
	static struct nm_option many[100];
	int i;

	expect("an unknown option", with_options(&a), EOPNOTSUPP);
	expect_true("its status", a.status == EOPNOTSUPP);
	a.next = (uintptr_t)&b;
	expect("two unknown options", with_options(&a), EOPNOTSUPP);
	expect_true("their statuses", a.status == EOPNOTSUPP && b.status == EOPNOTSUPP && a.next == (uintptr_t)&b);
	b.reqtype = 0;
	expect("an option of type 0", with_options(&a), EINVAL);
	expect_true("its status", b.status == EINVAL);
	b.reqtype = OPT_MAX;
	b.next = (uintptr_t)&a;
	expect("options in a circle", with_options(&a), EMSGSIZE);
	x.o.next = (uintptr_t)&y;
	expect("the same option twice", with_options(&x), EINVAL);
	expect_true("their statuses", x.o.status == EINVAL && y.o.status == EINVAL);
	x.o.next = 0;
	expect("offsets", with_options(&x), EOPNOTSUPP);
	x.o.reqtype = OPT_CSB;
	expect("CSB", with_options(&x), EOPNOTSUPP);
	expect("an option nowhere", with_options((void *)16), EFAULT);
	for (i = 0; i < 99; i++) {
		many[i].reqtype = OPT_MAX;
		many[i].next = (uintptr_t)&many[i + 1];
	}
	many[99].reqtype = OPT_EVENTFDS;
	many[99].size = 1000;
	expect("more options than fit", with_options(many), EMSGSIZE);
}

static void infos(void)
{
	struct nm_port_info i = {0};
	struct nm_pools_info m = {0};
	struct nm_port p;

	expect("PORT_INFO_GET of a port to be", on_new(REQ_PORT_INFO, "pst:0", &i), 0);
	expect_true("what it tells", i.memsize && i.tx_slots == 1024 && i.rx_slots == 1024 && i.tx_rings == 1 && i.rx_rings == 1 && i.mem_id == 2);
	expect("PORT_INFO_GET of nothing", on_new(REQ_PORT_INFO, "nosuchnic", &i), ENXIO);
	memset(&i, 0, sizeof(i));
	expect("PORT_INFO_GET of a memory", on_new(REQ_PORT_INFO, "", &i), 0);
	expect_true("what it tells", i.memsize && i.mem_id == 1 && !i.tx_rings);
	i.mem_id = 99;
	expect("PORT_INFO_GET of no memory", on_new(REQ_PORT_INFO, "", &i), EINVAL);
	expect("POOLS_INFO_GET", on_new(REQ_POOLS_INFO, "pst:0", &m), 0);
	expect_true("what it tells", m.memsize && m.mem_id == 2 && m.if_total && m.if_size && m.ring_total && m.ring_size && m.buf_total && m.buf_size == 2048);
	expect("POOLS_INFO_GET without a name", on_new(REQ_POOLS_INFO, "", &m), ENXIO);
	p = nm_open("pst:0", &(struct nm_register){.mode = MODE_ALL});
	m.mem_id = 0;
	expect("POOLS_INFO_GET of an open port", on_new(REQ_POOLS_INFO, "pst:0", &m), 0);
	expect_true("where the buffers are", p.mem + m.buf_offset == BUF(RX_RING(p.nif, 0), 0));
	nm_close(&p);
}

static void refused(void)
{
	struct nm_attach a = {.reg = {.mode = MODE_ALL}};
	uint64_t body[2] = {0};

	expect("VALE_ATTACH of a NIC that there is not", on_new(REQ_VALE_ATTACH, "vale0:nosuchnic", &a), EINVAL);
	expect("VALE_ATTACH with a wrong name", on_new(REQ_VALE_ATTACH, "lo", &a), EINVAL);
	expect("VALE_DETACH of what is not attached", on_new(REQ_VALE_DETACH, "vale0:lo", body), ENXIO);
	expect("VALE_DETACH with a wrong name", on_new(REQ_VALE_DETACH, "lo", body), EINVAL);
	expect("VALE_LIST without switches", on_new(REQ_VALE_LIST, "", body), ENOENT);
	expect("VALE_LIST of no port", on_new(REQ_VALE_LIST, "vale0:x", body), ENXIO);
	expect("PORT_HDR_SET of no port", on_new(REQ_HDR_SET, "vale0:x", body), ENXIO);
	expect("PORT_HDR_GET of no port", on_new(REQ_HDR_GET, "vale0:x", body), ENXIO);
	expect("VALE_NEWIF", on_new(REQ_VALE_NEWIF, "v1", body), EOPNOTSUPP);
	expect("VALE_DELIF", on_new(REQ_VALE_DELIF, "v1", NULL), EOPNOTSUPP);
	expect("VALE_POLLING_ENABLE", on_new(REQ_POLLING_ENABLE, "vale0:lo", body), EOPNOTSUPP);
	expect("VALE_POLLING_DISABLE", on_new(REQ_POLLING_DISABLE, "vale0:lo", body), EOPNOTSUPP);
	expect("SYNC_KLOOP_START, unbound", on_new(REQ_KLOOP_START, "pst:0", body), ENXIO);
	expect("SYNC_KLOOP_STOP, unbound", on_new(REQ_KLOOP_STOP, "pst:0", NULL), ENXIO);
	expect("CSB_ENABLE without an option", on_new(REQ_CSB_ENABLE, "pst:0", NULL), EINVAL);
}

static void kloop(void)
{
	struct nm_port p = nm_open("pst:0", &(struct nm_register){.mode = MODE_ALL});
	struct { struct nm_option o; uint64_t at[2]; } csb = {{.reqtype = OPT_CSB}, {0}};
	struct nm_header h = {.version = NM_API, .reqtype = REQ_CSB_ENABLE, .name = "pst:0", .options = (uintptr_t)&csb};
	uint64_t body = 0;

	expect("SYNC_KLOOP_START", nm_request(p.fd, REQ_KLOOP_START, "pst:0", &body), EOPNOTSUPP);
	expect("SYNC_KLOOP_STOP", nm_request(p.fd, REQ_KLOOP_STOP, "pst:0", NULL), EOPNOTSUPP);
	expect("CSB_ENABLE", ioctl(p.fd, NIOCCTRL, &h), EOPNOTSUPP);
	nm_close(&p);
}

static void old(void)
{
	struct nm_legacy l = {.name = "pst:0", .version = 14, .arg3 = 20};
	int fd = device();

	expect("NIOCGINFO", ioctl(fd, NIOCGINFO, &l), 0);
	expect_true("what it tells", l.memsize && l.rx_rings == 1 && l.arg2 == 2);
	l.version = 11;
	expect("NIOCREGIF of a version of before", ioctl(fd, NIOCREGIF, &l), EINVAL);
	l.version = 16;
	expect("NIOCREGIF", ioctl(fd, NIOCREGIF, &l), 0);
	expect_true("what it tells", l.memsize && l.offset && l.rx_rings == 1 && l.rx_slots == 1024 && l.arg3 == 20);
	expect("a second time", ioctl(fd, NIOCREGIF, &l), EBUSY);
	close(fd);
	fd = device();
	l = (struct nm_legacy){.name = "nosuchnic", .version = 14};
	expect("NIOCREGIF of no interface", ioctl(fd, NIOCREGIF, &l), ENXIO);
	l = (struct nm_legacy){.name = "pst:0", .version = 14, .ringid = 0x4001};
	expect("NIOCREGIF of a ring that there is not", ioctl(fd, NIOCREGIF, &l), EINVAL);
	l = (struct nm_legacy){.name = "pst:0", .version = 14, .cmd = 8};
	expect("ptnetmap", ioctl(fd, NIOCREGIF, &l), EINVAL);
	expect("NIOCREGIF nowhere", ioctl(fd, NIOCREGIF, (void *)16), EFAULT);
	close(fd);
}

int main(void)
{
	headers();
	options();
	infos();
	refused();
	kloop();
	old();
	return nm_result();
}
