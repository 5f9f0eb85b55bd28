/* epoll sets that have files of the core's. Those are not put into the kernel's set,
 * which could tell neither which events are there nor let the core look: they are
 * kept here, and a wait is one for the set and for them together. */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>

REAL_DECL(int, epoll_ctl, (int, int, int, struct epoll_event *));
REAL_DECL(int, epoll_wait, (int, struct epoll_event *, int, int));
REAL_DECL(int, epoll_pwait, (int, struct epoll_event *, int, int, const sigset_t *));
REAL_DECL(int, epoll_pwait2, (int, struct epoll_event *, int, const struct timespec *, const sigset_t *));

struct member {
	int set, fd, off; /* off: EPOLLONESHOT has fired */
	uint32_t events;
	epoll_data_t data;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct member *members;
static size_t count, room;

static struct member *find(int set, int fd)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (members[i].set == set && members[i].fd == fd)
			return &members[i];
	return NULL;
}

static int control(int set, int op, int fd, struct epoll_event *ev)
{
	struct member *m = find(set, fd);

	if (op == EPOLL_CTL_ADD && m)
		return -EEXIST;
	if (op != EPOLL_CTL_ADD && !m)
		return -ENOENT;
	if (op == EPOLL_CTL_DEL) {
		*m = members[--count];
		return 0;
	}
	if (!ev)
		return -EFAULT;
	if (!m) {
		if (count == room) {
			m = realloc(members, (room ? 2 * room : 8) * sizeof(*m));
			if (!m)
				return -ENOMEM;
			members = m;
			room = room ? 2 * room : 8;
		}
		m = &members[count++];
	}
	*m = (struct member){.set = set, .fd = fd, .events = ev->events, .data = ev->data};
	return 0;
}

EXPORT int epoll_ctl(int set, int op, int fd, struct epoll_event *ev)
{
	int n;

	if (!is_netmap(fd))
		return REAL(epoll_ctl)(set, op, fd, ev);
	pthread_mutex_lock(&lock);
	n = control(set, op, fd, ev);
	pthread_mutex_unlock(&lock);
	return fail(n);
}

void epoll_forget(int fd)
{
	size_t i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < count;)
		if (members[i].fd == fd)
			members[i] = members[--count];
		else
			i++;
	pthread_mutex_unlock(&lock);
}

enum { MOST = 64 }; /* files of the core's in one set */

/* of_set lists a set's members, and the set itself last, as poll wants them. */
static int of_set(int set, struct pollfd *fds)
{
	size_t i;
	int n = 0;

	if (!__atomic_load_n(&netmap_files, __ATOMIC_RELAXED))
		return 0;
	pthread_mutex_lock(&lock);
	for (i = 0; i < count && n < MOST; i++)
		if (members[i].set == set && !members[i].off)
			fds[n++] = (struct pollfd){.fd = members[i].fd, .events = members[i].events & (POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM)};
	pthread_mutex_unlock(&lock);
	if (n)
		fds[n++] = (struct pollfd){.fd = set, .events = POLLIN};
	return n;
}

/* report tells what poll has found of a set's members. */
static int report(int set, const struct pollfd *fds, int n, struct epoll_event *evs, int most)
{
	int i, got = 0;

	pthread_mutex_lock(&lock);
	for (i = 0; i < n && got < most; i++) {
		struct member *m = fds[i].revents ? find(set, fds[i].fd) : NULL;

		if (!m)
			continue;
		evs[got].events = fds[i].revents;
		evs[got++].data = m->data;
		m->off = !!(m->events & EPOLLONESHOT);
	}
	pthread_mutex_unlock(&lock);
	return got;
}

static int wait_for_set(int set, struct pollfd *fds, int n, struct epoll_event *evs, int most, const struct timespec *timeout, const sigset_t *mask)
{
	int ready, got, more;

	if (most <= 0) {
		errno = EINVAL;
		return -1;
	}
	ready = ppoll(fds, n, timeout, mask);
	if (ready <= 0)
		return ready;
	got = report(set, fds, n - 1, evs, most);
	if (got == most || !fds[n - 1].revents)
		return got;
	more = REAL(epoll_wait)(set, evs + got, most - got, 0);
	if (more < 0)
		return got ? got : -1;
	return got + more;
}

EXPORT int epoll_pwait2(int set, struct epoll_event *evs, int most, const struct timespec *timeout, const sigset_t *mask)
{
	struct pollfd fds[MOST + 1];
	int n = of_set(set, fds);

	return n ? wait_for_set(set, fds, n, evs, most, timeout, mask) : REAL(epoll_pwait2)(set, evs, most, timeout, mask);
}

EXPORT int epoll_pwait(int set, struct epoll_event *evs, int most, int ms, const sigset_t *mask)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
	struct pollfd fds[MOST + 1];
	int n = of_set(set, fds);

	return n ? wait_for_set(set, fds, n, evs, most, ms < 0 ? NULL : &t, mask) : REAL(epoll_pwait)(set, evs, most, ms, mask);
}

EXPORT int epoll_wait(int set, struct epoll_event *evs, int most, int ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
	struct pollfd fds[MOST + 1];
	int n = of_set(set, fds);

	return n ? wait_for_set(set, fds, n, evs, most, ms < 0 ? NULL : &t, NULL) : REAL(epoll_wait)(set, evs, most, ms);
}
