/*
 * Whole frames over raw ports: one side generates, the other receives, looks whether
 * each frame is the next one and as it was sent, and acknowledges every WINDOW of them.
 * Other frames on the wire do not matter. Ends with 0 when all have come.
 *
 *	frames send|receive NIC COUNT LENGTH
 */
#include "nm.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 64, ETHERTYPE = 0x88b5 };

struct frame {
	uint8_t to[6], from[6];
	uint16_t type;
	uint8_t ack;
	uint8_t pad[3];
	uint32_t seq;
};

static struct nm_port port;
static int length;

static uint8_t pattern(uint32_t seq, int i) { return seq * 31 + i; }

/* wait_for waits until an event holds, for 10 s at most. */
static int wait_for(short event, int ms)
{
	struct pollfd p = {.fd = port.fd, .events = event};
	int n = poll(&p, 1, ms);

	if (n < 0)
		die("poll");
	if (p.revents & POLLERR) {
		fprintf(stderr, "POLLERR\n");
		exit(1);
	}
	return n;
}

/* put puts a frame into a ring that has room, over several slots if it is longer than
 * a buffer bears. */
static void put(uint32_t seq, int ack, int size)
{
	struct nm_ring *tx = TX_RING(port.nif, 0);
	struct nm_slot *s;
	struct frame *f;
	int i;

	while (tx->head == tx->tail)
		wait_for(POLLOUT, 10000);
	s = &tx->slot[tx->head];
	f = (struct frame *)BUF(tx, s->buf_idx);
	*f = (struct frame){.type = htons(ETHERTYPE), .ack = ack, .seq = htonl(seq)};
	memset(f->to, 0xff, sizeof(f->to));
	f->from[0] = 2;
	for (i = sizeof(*f); i < size; i++)
		((uint8_t *)f)[i] = pattern(seq, i);
	s->len = size;
	s->flags = 0;
	tx->head = tx->cur = nm_next(tx, tx->head);
}

/* get returns the next frame of ours, or NULL if none comes in ms. It is valid until
 * the next call. */
static struct frame *get(int ms, int *size)
{
	static int ring, taken = -1;
	int rings = port.nif->rx_rings;

	if (taken >= 0) {
		struct nm_ring *rx = RX_RING(port.nif, taken);

		rx->head = rx->cur = nm_next(rx, rx->head);
		taken = -1;
	}
	for (;;) {
		int i;

		for (i = 0; i < rings; i++, ring = (ring + 1) % rings) {
			struct nm_ring *rx = RX_RING(port.nif, ring);

			for (; rx->head != rx->tail; rx->head = rx->cur = nm_next(rx, rx->head)) {
				struct nm_slot *s = &rx->slot[rx->head];
				struct frame *f = (struct frame *)BUF(rx, s->buf_idx);

				if (s->len < sizeof(*f) || f->type != htons(ETHERTYPE))
					continue;
				taken = ring;
				*size = s->len;
				return f;
			}
		}
		if (!wait_for(POLLIN, ms))
			return NULL;
	}
}

static int acknowledged(uint32_t seq, int ms)
{
	struct frame *f;
	int size;

	while ((f = get(ms, &size)))
		if (f->ack && ntohl(f->seq) == seq)
			return 1;
	return 0;
}

static int send_all(uint32_t count)
{
	uint32_t seq;
	int tries;

	/* Frame 0 goes until somebody is there. */
	for (tries = 0; put(0, 0, length), !acknowledged(0, 100); tries++)
		if (tries == 300) {
			fprintf(stderr, "nobody receives\n");
			return 1;
		}
	for (seq = 1; seq <= count; seq++) {
		put(seq, 0, length);
		if (seq % WINDOW == 0 && !acknowledged(seq, 10000)) {
			fprintf(stderr, "frame %u was not acknowledged\n", seq);
			return 1;
		}
	}
	wait_for(POLLOUT, 10000);
	printf("sent %u\n", count);
	return 0;
}

static int receive_all(uint32_t count)
{
	uint32_t want = 0;
	struct frame *f;
	int size, i;

	while (want <= count && (f = get(30000, &size))) {
		uint32_t seq = ntohl(f->seq);

		if (f->ack)
			continue;
		if (seq == 0)
			want = 0; /* once more */
		if (seq != want || size != length) {
			fprintf(stderr, "frame %u of %d bytes, not %u of %d\n", seq, size, want, length);
			return 1;
		}
		for (i = sizeof(*f); i < size; i++)
			if (((uint8_t *)f)[i] != pattern(seq, i)) {
				fprintf(stderr, "frame %u is wrong at %d\n", seq, i);
				return 1;
			}
		if (seq % WINDOW == 0)
			put(seq, 1, 60);
		want++;
	}
	if (want <= count) {
		fprintf(stderr, "only %u frames came\n", want);
		return 1;
	}
	wait_for(POLLOUT, 10000);
	printf("received %u\n", count);
	return 0;
}

int main(int argc, char **argv)
{
	uint32_t count;
	int status;

	if (argc != 5)
		return 2;
	port = nm_open(argv[2], &(struct nm_register){.mode = MODE_ALL, .extra_bufs = 8});
	if (!port.nif->bufs_head || port.reg.extra_bufs != 8) {
		fprintf(stderr, "no extra buffers\n");
		return 1;
	}
	count = atoi(argv[3]);
	length = atoi(argv[4]);
	status = strcmp(argv[1], "send") ? receive_all(count) : send_all(count);
	nm_close(&port);
	return status;
}
