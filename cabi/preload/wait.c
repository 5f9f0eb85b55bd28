/* poll, ppoll, select, pselect that may be about /dev/netmap.
 *
 * The core looks first: it sends and receives. If nothing is there, the kernel
 * sleeps on the descriptors, which for those of the core are epoll sets of what may
 * bring something; then the core looks again. So signals end a wait as ever. */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <time.h>

REAL_DECL(int, poll, (struct pollfd *, nfds_t, int));
REAL_DECL(int, ppoll, (struct pollfd *, nfds_t, const struct timespec *, const sigset_t *));
REAL_DECL(int, select, (int, fd_set *, fd_set *, fd_set *, struct timeval *));
REAL_DECL(int, pselect, (int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *));

int64_t monotonic(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

struct deadline deadline_in(const struct timespec *t)
{
	struct deadline d = {0, 0};

	/* Nobody waits for longer than 292 years. */
	if (t && t->tv_sec < INT64_C(1) << 32) {
		d.set = 1;
		if (t->tv_sec || t->tv_nsec)
			d.ns = monotonic() + t->tv_sec * INT64_C(1000000000) + t->tv_nsec;
	}
	return d;
}

struct timespec *deadline_left(const struct deadline *d, struct timespec *t)
{
	int64_t left;

	if (!d->set)
		return NULL;
	left = d->ns ? d->ns - monotonic() : 0;
	if (left < 0)
		left = 0;
	t->tv_sec = left / 1000000000;
	t->tv_nsec = left % 1000000000;
	return t;
}

static int any_netmap(const struct pollfd *fds, nfds_t n)
{
	nfds_t i;

	if (!__atomic_load_n(&netmap_files, __ATOMIC_RELAXED))
		return 0;
	for (i = 0; i < n; i++)
		if (is_netmap(fds[i].fd))
			return 1;
	return 0;
}

/* sleep_on waits in the kernel, and returns how many descriptors of others are
 * ready. In asked are the program's events; in the core's files' place is the one
 * event that their descriptors have: that something may have been received. files is
 * scratch. */
static int sleep_on(struct pollfd *fds, const short *asked, int *files, nfds_t n, const struct timespec *t, const sigset_t *mask)
{
	int ready, others = 0;
	nfds_t i;

	for (i = 0; i < n; i++)
		if (is_netmap(fds[i].fd)) {
			files[i] = fds[i].fd;
			fds[i].events = asked[i] & (POLLIN | POLLRDNORM) ? POLLIN : 0;
			fds[i].fd = wakes[fds[i].fd];
		} else {
			files[i] = -1;
		}
	ready = REAL(ppoll)(fds, n, t, mask);
	for (i = 0; i < n; i++) {
		fds[i].events = asked[i];
		if (files[i] >= 0) {
			fds[i].fd = files[i];
			fds[i].revents = 0;
		} else if (ready > 0 && fds[i].revents) {
			others++;
		}
	}
	return ready < 0 ? -1 : others;
}

/* look_at_others does not wait. */
static int look_at_others(struct pollfd *fds, nfds_t n)
{
	static const struct timespec now;
	int found = 0;
	nfds_t i;

	for (i = 0; i < n; i++)
		if (!is_netmap(fds[i].fd))
			found += REAL(ppoll)(&fds[i], 1, &now, NULL) > 0;
	return found;
}

static int wait_with(struct pollfd *fds, const short *asked, int *files, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	struct deadline end = deadline_in(timeout);
	unsigned seen = signals_seen;
	struct timespec t, *left;
	int found, others;
	int64_t soon;

	for (;;) {
		found = core.poll(fds, n, &soon);
		left = deadline_left(&end, &t);
		if (found || (left && !left->tv_sec && !left->tv_nsec))
			return found + look_at_others(fds, n);
		if (seen != signals_seen) {
			errno = EINTR;
			return -1;
		}
		if (soon && (!left || left->tv_sec || left->tv_nsec > soon)) {
			t = (struct timespec){soon / 1000000000, soon % 1000000000};
			left = &t;
		}
		others = sleep_on(fds, asked, files, n, left, mask);
		if (others < 0)
			return -1;
		if (others)
			return others + core.poll(fds, n, &soon);
	}
}

static int wait_for(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	struct {
		short asked[64];
		int files[64];
	} few;
	short *asked = few.asked;
	int *files = few.files;
	void *many = NULL;
	nfds_t i;
	int found;

	if (in_child()) {
		errno = ENXIO;
		return -1;
	}
	if (n > sizeof(few.asked) / sizeof(few.asked[0])) {
		if (!(many = calloc(n, sizeof(*files) + sizeof(*asked)))) {
			errno = ENOMEM;
			return -1;
		}
		files = many;
		asked = (short *)(files + n);
	}
	for (i = 0; i < n; i++)
		asked[i] = fds[i].events;
	found = wait_with(fds, asked, files, n, timeout, mask);
	free(many);
	return found;
}

EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	return any_netmap(fds, n) ? wait_for(fds, n, timeout, mask) : REAL(ppoll)(fds, n, timeout, mask);
}

EXPORT int poll(struct pollfd *fds, nfds_t n, int ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};

	return any_netmap(fds, n) ? wait_for(fds, n, ms < 0 ? NULL : &t, NULL) : REAL(poll)(fds, n, ms);
}

/* What programs call that were built with _FORTIFY_SOURCE. The size is that of
 * the array, and has been found wrong if it is too small. */
EXPORT int __poll_chk(struct pollfd *fds, nfds_t n, int ms, size_t size)
{
	if (size / sizeof(*fds) < n)
		abort();
	return poll(fds, n, ms);
}

EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t size)
{
	if (size / sizeof(*fds) < n)
		abort();
	return ppoll(fds, n, timeout, mask);
}

static int in_set(int fd, fd_set *set)
{
	return set && FD_ISSET(fd, set);
}

/* select_netmap is select by way of poll, when a set has a file of the core's. */
static int select_netmap(int n, fd_set *r, fd_set *w, fd_set *x, const struct timespec *timeout, const sigset_t *mask)
{
	struct pollfd fds[FD_SETSIZE];
	int fd, i, count = 0, ready;

	for (fd = 0; fd < n; fd++) {
		short events = (in_set(fd, r) ? POLLIN : 0) | (in_set(fd, w) ? POLLOUT : 0) | (in_set(fd, x) ? POLLPRI : 0);

		if (events)
			fds[count++] = (struct pollfd){.fd = fd, .events = events};
	}
	ready = wait_for(fds, count, timeout, mask);
	if (ready < 0)
		return -1;
	for (i = ready = 0; i < count; i++) {
		struct pollfd *p = &fds[i];

		if (p->revents & POLLNVAL) {
			errno = EBADF;
			return -1;
		}
		if (in_set(p->fd, r) && !(p->revents & (POLLIN | POLLHUP | POLLERR)))
			FD_CLR(p->fd, r);
		if (in_set(p->fd, w) && !(p->revents & (POLLOUT | POLLERR)))
			FD_CLR(p->fd, w);
		if (in_set(p->fd, x) && !(p->revents & POLLPRI))
			FD_CLR(p->fd, x);
		ready += in_set(p->fd, r) + in_set(p->fd, w) + in_set(p->fd, x);
	}
	return ready;
}

static int selects_netmap(int n, fd_set *r, fd_set *w, fd_set *x)
{
	int fd;

	if (!__atomic_load_n(&netmap_files, __ATOMIC_RELAXED) || n > FD_SETSIZE)
		return 0;
	for (fd = 0; fd < n; fd++)
		if (is_netmap(fd) && (in_set(fd, r) || in_set(fd, w) || in_set(fd, x)))
			return 1;
	return 0;
}

EXPORT int select(int n, fd_set *r, fd_set *w, fd_set *x, struct timeval *timeout)
{
	struct timespec t, *tp = NULL;
	struct deadline end;
	int ready;

	if (!selects_netmap(n, r, w, x))
		return REAL(select)(n, r, w, x, timeout);
	if (timeout) {
		t = (struct timespec){timeout->tv_sec, timeout->tv_usec * 1000L};
		tp = &t;
	}
	end = deadline_in(tp);
	ready = select_netmap(n, r, w, x, tp, NULL);
	if (timeout && deadline_left(&end, &t)) { /* as Linux does */
		timeout->tv_sec = t.tv_sec;
		timeout->tv_usec = t.tv_nsec / 1000;
	}
	return ready;
}

EXPORT int pselect(int n, fd_set *r, fd_set *w, fd_set *x, const struct timespec *timeout, const sigset_t *mask)
{
	if (!selects_netmap(n, r, w, x))
		return REAL(pselect)(n, r, w, x, timeout, mask);
	return select_netmap(n, r, w, x, timeout, mask);
}
