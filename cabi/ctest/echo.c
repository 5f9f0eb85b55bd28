/*
 * A TCP server over a PASTE port: it sends back what it receives, from the buffers
 * in which that lies. With "select" or "epoll" as its second argument it waits by
 * these, with "keep" it also takes buffers out of the ring, and gives others.
 *
 *	echo PORT [poll|select|epoll|keep] [NIC]
 */
#include "nm.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile sig_atomic_t stop;
static const char *way = "poll";
static uint32_t spare; /* chain of buffers of our own */

static void on_signal(int sig)
{
	char deep[2048]; /* a stack of Go's would not have that */

	memset(deep, sig, sizeof(deep));
	stop = deep[sizeof(deep) - 1];
}

static int listener(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
	socklen_t n = sizeof(a);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 1024) || getsockname(fd, (struct sockaddr *)&a, &n))
		die("listen");
	printf("%d\n", ntohs(a.sin_port));
	fflush(stdout);
	return fd;
}

static int wait_poll(int port, int listening)
{
	struct pollfd fds[2] = {{.fd = port, .events = POLLIN}, {.fd = listening, .events = POLLIN}};

	if (poll(fds, 2, -1) < 0)
		return -1;
	if (fds[0].revents & POLLERR)
		die("POLLERR");
	return (fds[0].revents ? 1 : 0) | (fds[1].revents ? 2 : 0);
}

static int wait_select(int port, int listening)
{
	struct timeval t = {600, 0};
	fd_set r;

	FD_ZERO(&r);
	FD_SET(port, &r);
	FD_SET(listening, &r);
	if (select((port > listening ? port : listening) + 1, &r, NULL, NULL, &t) < 0)
		return -1;
	return (FD_ISSET(port, &r) ? 1 : 0) | (FD_ISSET(listening, &r) ? 2 : 0);
}

static int wait_epoll(int port, int listening)
{
	static int set = -1;
	struct epoll_event evs[2];
	int i, n, found = 0;

	if (set < 0) {
		struct epoll_event a = {.events = EPOLLIN, .data.u32 = 1}, b = {.events = EPOLLIN, .data.u32 = 2};

		set = epoll_create1(0);
		if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, port, &a) || epoll_ctl(set, EPOLL_CTL_ADD, listening, &b))
			die("epoll");
	}
	if ((n = epoll_wait(set, evs, 2, -1)) < 0)
		return -1;
	for (i = 0; i < n; i++)
		found |= evs[i].data.u32;
	return found;
}

static int wait_for(int port, int listening)
{
	if (!strcmp(way, "select"))
		return wait_select(port, listening);
	if (!strcmp(way, "epoll"))
		return wait_epoll(port, listening);
	return wait_poll(port, listening);
}

/* take keeps the payload of a received slot: the buffer that it gives for it is the
 * one that was kept before. */
static void take(struct nm_ring *rx, struct nm_slot *in)
{
	uint32_t next = *(uint32_t *)BUF(rx, spare), old = in->buf_idx;
	char *mine = BUF(rx, spare);

	memcpy(mine + nm_doff(in), BUF(rx, old) + nm_doff(in), in->len - nm_doff(in));
	in->buf_idx = spare;
	in->flags |= SLOT_BUF_CHANGED;
	*(uint32_t *)BUF(rx, old) = next;
	spare = old;
}

static void serve(struct nm_port *p, struct nm_ring *rx, struct nm_ring *tx)
{
	for (; rx->head != rx->tail; rx->head = rx->cur = nm_next(rx, rx->head)) {
		struct nm_slot *in = &rx->slot[rx->head], *out;
		uint32_t buf;

		if (in->len == nm_doff(in)) {
			if (close(nm_fd(in)))
				die("close of a connection");
			continue;
		}
		if (!strcmp(way, "keep"))
			take(rx, in);
		while (tx->head == tx->tail)
			if (ioctl(p->fd, NIOCTXSYNC, NULL))
				die("NIOCTXSYNC");
		out = &tx->slot[tx->head];
		buf = out->buf_idx;
		out->buf_idx = in->buf_idx;
		out->len = in->len;
		nm_set(out, nm_fd(in), nm_doff(in));
		out->flags = SLOT_BUF_CHANGED;
		in->buf_idx = buf;
		in->flags = SLOT_BUF_CHANGED;
		tx->head = tx->cur = nm_next(tx, tx->head);
	}
}

static void accept_all(struct nm_port *p, int listening)
{
	for (;;) {
		struct nm_fd_reg r = {0};
		int fd = accept(listening, NULL, NULL);

		if (fd < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (fd < 0)
			die("accept");
		r.fd = fd;
		if (nm_request(p->fd, REQ_PST_FD_REG, "pst:0", &r)) {
			if (errno != EINVAL) /* the peer has gone already */
				die("PST_FD_REG");
			close(fd);
		}
	}
}

int main(int argc, char **argv)
{
	struct nm_register reg = {.mode = MODE_ALL, .extra_bufs = 16};
	struct nm_port p;
	int listening;

	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	if (argc > 2)
		way = argv[2];
	p = nm_open("pst:0", &reg);
	spare = p.nif->bufs_head;
	if (argc > 3) {
		struct nm_attach a = {.reg = {.mode = MODE_NIC_SW}};
		char name[64];

		snprintf(name, sizeof(name), "pst:%s", argv[3]);
		if (nm_request(p.fd, REQ_PST_ATTACH, name, &a))
			die(name);
	}
	listening = listener(argc > 1 ? atoi(argv[1]) : 0);
	while (!stop) {
		int found = wait_for(p.fd, listening);

		if (found < 0 && errno != EINTR)
			die(way);
		if (found > 0 && found & 1)
			serve(&p, RX_RING(p.nif, 0), TX_RING(p.nif, 0));
		if (found > 0 && found & 2)
			accept_all(&p, listening);
	}
	p.nif->bufs_head = spare;
	nm_close(&p);
	fprintf(stderr, "ended by signal %d\n", (int)stop);
	return 0;
}
