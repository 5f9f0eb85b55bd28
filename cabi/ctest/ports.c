/*
 * Ports of connections, bound in all the ways that there are and some that there are
 * not: rings, sockets, NICs, memory of the program's.
 */
#include "nm.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static void registers(void)
{
	struct nm_register all = {.mode = MODE_ALL}, bad;
	struct nm_port p, q;
	int fd;

	expect("mode 0", registering("pst:0", (bad = all, bad.mode = 0, bad)), EINVAL);
	expect("a mode that there is not", registering("pst:0", (bad = all, bad.mode = 77, bad)), EINVAL);
	expect("a deprecated mode of pipes", registering("pst:0", (bad = all, bad.mode = MODE_PIPE_MASTER, bad)), EINVAL);
	expect("host rings of connections", registering("pst:0", (bad = all, bad.mode = MODE_SW, bad)), EINVAL);
	expect("NIC and host rings of connections", registering("pst:0", (bad = all, bad.mode = MODE_NIC_SW, bad)), EINVAL);
	expect("a ring that there is not", registering("pst:0", (bad = all, bad.mode = MODE_ONE, bad.ringid = 1, bad)), EINVAL);
	expect("a memory that there is not", registering("pst:0", (bad = all, bad.mem_id = 99, bad)), EINVAL);
	expect("a monitor", registering("pst:0", (bad = all, bad.flags = FLAG_MONITOR_TX, bad)), EOPNOTSUPP);
	expect("no interface of that name", registering("nosuchnic", all), ENXIO);
	expect("no name", registering("", all), ENXIO);
	expect("a port without a name of its own", registering("pst:", all), EINVAL);
	expect("more rings than there can be", registering("pst:0", (bad = all, bad.rx_rings = 1000, bad)), EINVAL);

	p = nm_open("pst:0", &(struct nm_register){.mode = MODE_ONE, .ringid = 1, .tx_rings = 2, .rx_rings = 2, .rx_slots = 100, .extra_bufs = 5, .flags = FLAG_EXCLUSIVE});
	expect_true("two rings", p.reg.rx_rings == 2 && p.reg.tx_rings == 2 && p.nif->rx_rings == 2 && p.nif->tx_rings == 2);
	expect_true("slots, rounded up", p.reg.rx_slots == 128 && RX_RING(p.nif, 1)->num_slots == 128);
	expect_true("no ring but the one", p.nif->ring_ofs[0] == 0 && p.nif->ring_ofs[1] != 0 && p.nif->ring_ofs[2] == 0);
	expect_true("the ring's number", RX_RING(p.nif, 1)->ringid == 1 && RX_RING(p.nif, 1)->dir == 0 && TX_RING(p.nif, 1)->dir == 1);
	expect_true("the name", strcmp(p.nif->name, "pst:0") == 0);
	expect_true("five buffers more", p.reg.extra_bufs == 5);
	{
		uint32_t n = 0, at = p.nif->bufs_head;

		for (; at && n < 10; n++)
			at = *(uint32_t *)BUF(TX_RING(p.nif, 1), at);
		expect_true("a chain of five", n == 5);
	}
	expect_true("memory around all of it", p.reg.memsize > 0 && (char *)TX_RING(p.nif, 1) > p.mem &&
		BUF(TX_RING(p.nif, 1), TX_RING(p.nif, 1)->slot[0].buf_idx) < p.mem + p.reg.memsize);
	expect("a second time", nm_request(p.fd, REQ_REGISTER, "pst:0", &all), EBUSY);
	expect("a ring that somebody has", registering("pst:0", all), EBUSY);
	expect("the other ring", registering("pst:0", (bad = all, bad.mode = MODE_ONE, bad)), 0);
	q = nm_open("pst:1", &(struct nm_register){.mode = MODE_ALL, .mem_id = p.reg.mem_id, .flags = FLAG_RX_ONLY});
	expect_true("the same memory", q.mem == p.mem && q.reg.memsize == p.reg.memsize);
	expect_true("no transmit ring", q.nif->ring_ofs[0] == 0 && q.nif->ring_ofs[1] != 0);
	expect("txsync", ioctl(p.fd, NIOCTXSYNC, NULL), 0);
	expect("rxsync", ioctl(p.fd, NIOCRXSYNC, NULL), 0);
	expect("more than the memory", mmap(NULL, p.reg.memsize + 4096, PROT_READ, MAP_SHARED, p.fd, 0) == MAP_FAILED ? -1 : 0, EINVAL);
	fd = p.fd;
	expect("dup", dup(fd), EINVAL);
	nm_close(&q);
	nm_close(&p);
	p = nm_open("pst:0", &all);
	expect("close", close(p.fd), 0);
	{
		char *other = mmap(NULL, p.reg.memsize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		expect_true("memory that the program has not unmapped", other + p.reg.memsize <= p.mem || other >= p.mem + p.reg.memsize);
		expect("munmap after close", munmap(p.mem, p.reg.memsize), 0);
		*other = 1;
		munmap(other, p.reg.memsize);
	}
	expect("the port is free again", registering("pst:0", all), 0);
}

static void rings(void)
{
	struct nm_port p = nm_open("pst:0", &(struct nm_register){.mode = MODE_ALL, .tx_slots = 64, .rx_slots = 64});
	struct nm_ring *tx = TX_RING(p.nif, 0), *rx = RX_RING(p.nif, 0);
	struct pollfd f = {.fd = p.fd, .events = POLLOUT};
	uint32_t mine = tx->slot[3].buf_idx;

	expect_true("room to send", poll(&f, 1, 0) == 1 && f.revents == POLLOUT && tx->tail == 63);
	f.events = POLLIN;
	expect_true("nothing received", poll(&f, 1, 20) == 0 && f.revents == 0);
	tx->head = tx->cur = 1000;
	expect_true("a head outside of the ring", poll(&f, 1, 0) == 1 && f.revents == POLLERR && tx->head == 0 && tx->cur == 0);
	tx->slot[0].buf_idx = 0xffffff;
	tx->head = tx->cur = 1;
	expect_true("a buffer outside of the memory", poll(&f, 1, 0) == 1 && f.revents & POLLERR && tx->slot[0].buf_idx != 0xffffff);
	rx->head = rx->cur = 5;
	expect("rxsync repairs a ring", ioctl(p.fd, NIOCRXSYNC, NULL), 0);
	expect_true("repaired", rx->head == 0);
	tx->tail = 7;
	expect("txsync", ioctl(p.fd, NIOCTXSYNC, NULL), 0);
	expect_true("the tail is as it was", tx->tail == 63 && tx->slot[3].buf_idx == mine);
	nm_close(&p);
}

/* tcp makes a connection over the loopback device. */
static void tcp(int fds[2], int *listening)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t n = sizeof(a);

	*listening = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(*listening, (struct sockaddr *)&a, n) || listen(*listening, 1) || getsockname(*listening, (struct sockaddr *)&a, &n))
		die("listen");
	fds[1] = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fds[1], (struct sockaddr *)&a, n) || (fds[0] = accept(*listening, NULL, NULL)) < 0)
		die("connect");
}

static int fd_reg(int fd, const char *name, int sock)
{
	struct nm_fd_reg r = {.fd = sock};

	return nm_request(fd, REQ_PST_FD_REG, name, &r);
}

static void sockets(void)
{
	int listening, c[2] = {-1, -1}, unconnected = socket(AF_INET, SOCK_STREAM, 0), control = device();
	struct nm_port p;
	struct pollfd f;

	tcp(c, &listening);
	expect("PST_FD_REG without a port", fd_reg(control, "pst:0", c[0]), ENXIO);
	p = nm_open("pst:0", &(struct nm_register){.mode = MODE_ALL});
	expect("PST_FD_REG with a port that is none", fd_reg(p.fd, "eth0", c[0]), EINVAL);
	expect("a descriptor that is not open", fd_reg(p.fd, "pst:0", 1000), EINVAL);
	expect("descriptor 0", fd_reg(p.fd, "pst:0", 0), EINVAL);
	expect("descriptor -1", fd_reg(p.fd, "pst:0", -1), EINVAL);
	expect("a descriptor too high", fd_reg(p.fd, "pst:0", 70000), ENOMEM);
	expect("not a socket", fd_reg(p.fd, "pst:0", p.fd), EINVAL);
	expect("a listener", fd_reg(p.fd, "pst:0", listening), EINVAL);
	expect("not connected", fd_reg(p.fd, "pst:0", unconnected), EINVAL);
	if (send(c[1], "early", 5, 0) != 5)
		die("send");
	expect("a connected socket, from another file", fd_reg(control, "pst:0", c[0]), 0);
	expect("once more", fd_reg(p.fd, "pst:0", c[0]), EBUSY);
	f = (struct pollfd){.fd = p.fd, .events = POLLIN};
	expect_true("what had come before", poll(&f, 1, 10000) == 1 && f.revents == POLLIN);
	{
		struct nm_ring *rx = RX_RING(p.nif, 0);
		struct nm_slot *s = &rx->slot[rx->head];

		expect_true("its slot", nm_fd(s) == c[0] && s->len - nm_doff(s) == 5 && !memcmp(BUF(rx, s->buf_idx) + nm_doff(s), "early", 5));
	}
	expect("close", close(c[0]), 0);
	expect("it is closed", fcntl(c[0], F_GETFD), EBADF);
	close(c[1]);
	close(listening);
	close(unconnected);
	close(control);
	nm_close(&p);
}

static void nics(void)
{
	struct nm_attach a = {.reg = {.mode = MODE_NIC_SW}};
	uint64_t body[1] = {0};
	struct nm_port p;

	expect("PST_ATTACH without a port", on_new(REQ_PST_ATTACH, "pst:lo", &a), ENXIO);
	p = nm_open("pst:0", &(struct nm_register){.mode = MODE_ALL});
	expect("PST_ATTACH of a NIC that there is not", nm_request(p.fd, REQ_PST_ATTACH, "pst:nosuchnic", &a), ENXIO);
	expect("PST_DETACH of a NIC that is not attached", nm_request(p.fd, REQ_PST_DETACH, "pst:lo", body), ENXIO);
	expect("PST_ATTACH", nm_request(p.fd, REQ_PST_ATTACH, "pst:lo", &a), 0);
	expect("PST_ATTACH of a NIC that is attached", nm_request(p.fd, REQ_PST_ATTACH, "pst:lo", &a), EBUSY);
	expect("PST_DETACH", nm_request(p.fd, REQ_PST_DETACH, "pst:lo", body), 0);
	expect("PST_ATTACH again", nm_request(p.fd, REQ_PST_ATTACH, "pst:lo", &a), 0);
	expect("PST_ATTACH with a wrong name", nm_request(p.fd, REQ_PST_ATTACH, "lo", &a), EINVAL);
	expect("PST_DETACH with a wrong name", nm_request(p.fd, REQ_PST_DETACH, "lo", &a), EINVAL);
	expect("a NIC as the name of a port", registering("pst:lo", (struct nm_register){.mode = MODE_ALL}), EINVAL);
	nm_close(&p);
}

static int lend(struct nm_extmem *e, void *mem, size_t size)
{
	struct nm_register reg = {.mode = MODE_ALL, .rx_slots = 64, .tx_slots = 64};
	struct nm_header h = {.version = NM_API, .reqtype = REQ_REGISTER, .name = "pst:0", .body = (uintptr_t)&reg, .options = (uintptr_t)e};

	*e = (struct nm_extmem){.opt = {.reqtype = OPT_EXTMEM}, .usrptr = (uintptr_t)mem, .info = {.memsize = size}};
	return nm_raw(h);
}

static void extmem(void)
{
	size_t size = 16 << 20;
	char *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct nm_extmem e;

	expect("memory of the program's", lend(&e, mem, size), 0);
	expect_true("its status", e.opt.status == 0 && e.info.mem_id > 2 && e.info.buf_total > 1000 && e.info.memsize == size);
	expect("the pool that is in it now", lend(&e, mem, size), 0);
	expect("memory that is not there", lend(&e, mem + (1UL << 44), size), EFAULT);
	expect_true("its status", e.opt.status == EFAULT);
	expect("no memory", lend(&e, NULL, size), EINVAL);
	expect("memory that begins anywhere", lend(&e, mem + 100, size - 4096), EINVAL);
	expect("hardly any memory", lend(&e, mem, 4096), EINVAL);
	expect("unmap", munmap(mem, size), 0);
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memset(mem, 'x', 100);
	expect("memory that holds something else", lend(&e, mem, size), EINVAL);
	expect_true("which is still there", mem[0] == 'x' && mem[99] == 'x' && mem[5000] == 0);
	munmap(mem, size);
}

int main(void)
{
	registers();
	rings();
	sockets();
	nics();
	extmem();
	return nm_result();
}
