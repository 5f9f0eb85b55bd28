/*
 * Libpaste-netmap stands between a program and the C library: calls that are
 * about /dev/netmap go to the core, which is written in Go, all others to the C
 * library as ever.
 */
#ifndef PRELOAD_H
#define PRELOAD_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define EXPORT __attribute__((visibility("default")))

/* The C library's own functions. REAL(name) is one, looked up when it is first used;
 * it is declared by REAL_DECL(result, name, arguments). */
void *real_lookup(const char *name);
#define REAL_DECL(result, name, args)                                          \
	typedef result(*real_##name##_t) args;                                 \
	static inline real_##name##_t real_##name(void)                        \
	{                                                                      \
		static void *volatile f;                                       \
		if (!f)                                                        \
			f = real_lookup(#name);                                \
		return (real_##name##_t)f;                                     \
	}                                                                      \
	struct real_##name##_is_declared
#define REAL(name) real_##name()

/* What the core offers, see ../core/main.go: 0 or more, or a negative error. */
struct core {
	int (*open)(int cloexec);
	int (*ioctl)(int fd, unsigned long cmd, uintptr_t arg);
	int (*wake)(int fd);
	int (*mmap)(int fd, uint64_t size, uint64_t off, uintptr_t *at);
	int (*unmap)(uintptr_t addr, uintptr_t size);
	int (*close)(int fd);
	int (*poll)(struct pollfd *fds, unsigned long n, int64_t *soon);
};
extern struct core core;

/* core_load loads the core, if that was not done yet, and returns 0 or an error. */
int core_load(void);

/* What a descriptor is. Numbers above never are anything. */
enum kind { ORDINARY, NETMAP, SOCKET };
enum { DESCRIPTORS = 1 << 16 };
extern unsigned char kinds[DESCRIPTORS];
extern int netmap_files; /* how many descriptors are NETMAP */
extern int wakes[DESCRIPTORS]; /* of those: what to sleep on */

static inline int kind_of(int fd)
{
	return fd >= 0 && fd < DESCRIPTORS
		       ? __atomic_load_n(&kinds[fd], __ATOMIC_ACQUIRE)
		       : ORDINARY;
}

static inline int is_netmap(int fd) { return kind_of(fd) == NETMAP; }
void set_kind(int fd, enum kind k);

/* in_child says whether this is a child made by fork, in which the core is dead;
 * then it tells the user, once. */
int in_child(void);
extern int forked;

/* epoll_forget takes a descriptor that is closed out of all epoll sets. */
void epoll_forget(int fd);

/* fail sets errno if n is negative, and returns -1 then, else n. */
int fail(int n);

/* signals_seen counts the program's handlers that have run in this thread. */
extern __thread unsigned signals_seen;

/* A time to wait until; forever if set is 0. */
struct deadline {
	int64_t ns; /* CLOCK_MONOTONIC */
	int set;
};
int64_t monotonic(void);
struct deadline deadline_in(const struct timespec *t);
/* deadline_left is what is left, at least 0, in t; NULL for ever. */
struct timespec *deadline_left(const struct deadline *d, struct timespec *t);

#endif
