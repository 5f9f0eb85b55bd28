/*
 * A UDP server over a PASTE port: each datagram goes back to where it came from, from
 * the buffer in which it lies. Its IPv4 and UDP headers are before the payload.
 */
#include "nm.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static volatile sig_atomic_t stop;

static void on_signal(int sig) { stop = sig; }

static void swap(char *a, char *b, size_t n)
{
	char t[4];

	memcpy(t, a, n);
	memcpy(a, b, n);
	memcpy(b, t, n);
}

int main(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	struct nm_port p = nm_open("pst:0", &(struct nm_register){.mode = MODE_ALL});
	struct nm_ring *rx = RX_RING(p.nif, 0), *tx = TX_RING(p.nif, 0);
	struct nm_fd_reg r = {.fd = socket(AF_INET, SOCK_DGRAM, 0)};
	socklen_t n = sizeof(a);

	signal(SIGTERM, on_signal);
	if (bind(r.fd, (struct sockaddr *)&a, n) || getsockname(r.fd, (struct sockaddr *)&a, &n))
		die("bind");
	if (nm_request(p.fd, REQ_PST_FD_REG, "pst:0", &r))
		die("PST_FD_REG");
	printf("%d\n", ntohs(a.sin_port));
	fflush(stdout);
	while (!stop) {
		struct pollfd f = {.fd = p.fd, .events = POLLIN};

		if (poll(&f, 1, -1) <= 0)
			continue;
		for (; rx->head != rx->tail; rx->head = rx->cur = nm_next(rx, rx->head)) {
			struct nm_slot *in = &rx->slot[rx->head], *out;
			char *payload = BUF(rx, in->buf_idx) + nm_doff(in);
			uint32_t buf;

			while (tx->head == tx->tail)
				if (ioctl(p.fd, NIOCTXSYNC, NULL))
					die("NIOCTXSYNC");
			swap(payload - 16, payload - 12, 4);
			swap(payload - 8, payload - 6, 2);
			out = &tx->slot[tx->head];
			buf = out->buf_idx;
			*out = *in;
			out->flags = in->flags | SLOT_BUF_CHANGED;
			in->buf_idx = buf;
			in->flags = SLOT_BUF_CHANGED;
			tx->head = tx->cur = nm_next(tx, tx->head);
		}
	}
	nm_close(&p);
	fprintf(stderr, "ended by signal %d\n", (int)stop);
	return 0;
}
