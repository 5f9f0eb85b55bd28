/* open, ioctl, mmap, munmap, close of /dev/netmap. */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

/* NIOCCTRL and NETMAP_REQ_PST_FD_REG of net/netmap.h. */
#define NIOCCTRL 0xc0586997u
#define REQ_PST_FD_REG 18

REAL_DECL(int, open, (const char *, int, ...));
REAL_DECL(int, open64, (const char *, int, ...));
REAL_DECL(int, openat, (int, const char *, int, ...));
REAL_DECL(int, openat64, (int, const char *, int, ...));
REAL_DECL(int, __open_2, (const char *, int));
REAL_DECL(int, __open64_2, (const char *, int));
REAL_DECL(int, ioctl, (int, unsigned long, ...));
REAL_DECL(void *, mmap, (void *, size_t, int, int, int, off_t));
REAL_DECL(void *, mmap64, (void *, size_t, int, int, int, off64_t));
REAL_DECL(int, munmap, (void *, size_t));
REAL_DECL(int, close, (int));
REAL_DECL(int, dup, (int));
REAL_DECL(int, dup2, (int, int));
REAL_DECL(int, dup3, (int, int, int));

static int is_device(const char *path)
{
	return path && strcmp(path, "/dev/netmap") == 0;
}

static int netmap_open(int flags)
{
	int fd = core_load();

	if (fd) {
		errno = fd;
		return -1;
	}
	fd = core.open(!!(flags & O_CLOEXEC));
	if (fd >= 0) {
		wakes[fd] = fd;
		set_kind(fd, NETMAP);
	}
	return fail(fd);
}

/* The mode is there only if a file may be made. */
#define MODE(flags, mode)                                                      \
	mode_t mode = 0;                                                       \
	if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) {           \
		va_list ap;                                                    \
		va_start(ap, flags);                                           \
		mode = va_arg(ap, mode_t);                                     \
		va_end(ap);                                                    \
	}

EXPORT int open(const char *path, int flags, ...)
{
	MODE(flags, mode)
	return is_device(path) ? netmap_open(flags) : REAL(open)(path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...)
{
	MODE(flags, mode)
	return is_device(path) ? netmap_open(flags) : REAL(open64)(path, flags, mode);
}

EXPORT int openat(int dir, const char *path, int flags, ...)
{
	MODE(flags, mode)
	return is_device(path) ? netmap_open(flags) : REAL(openat)(dir, path, flags, mode);
}

EXPORT int openat64(int dir, const char *path, int flags, ...)
{
	MODE(flags, mode)
	return is_device(path) ? netmap_open(flags) : REAL(openat64)(dir, path, flags, mode);
}

/* What programs call that were built with _FORTIFY_SOURCE. */
EXPORT int __open_2(const char *path, int flags)
{
	return is_device(path) ? netmap_open(flags) : REAL(__open_2)(path, flags);
}

EXPORT int __open64_2(const char *path, int flags)
{
	return is_device(path) ? netmap_open(flags) : REAL(__open64_2)(path, flags);
}

EXPORT int ioctl(int fd, unsigned long cmd, ...)
{
	va_list ap;
	void *arg;
	int n;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (!is_netmap(fd))
		return REAL(ioctl)(fd, cmd, arg);
	if (in_child()) {
		errno = ENXIO;
		return -1;
	}
	/* A command is an int to the kernel, and may come with its sign extended. */
	cmd = (unsigned int)cmd;
	n = core.ioctl(fd, cmd, (uintptr_t)arg);
	if (n == 0 && wakes[fd] == fd) /* it may be bound now */
		wakes[fd] = core.wake(fd);
	if (n == 0 && cmd == NIOCCTRL) {
		/* struct nmreq_header: request at 2, address of the body at 80. */
		uint16_t request;
		uint64_t body;

		memcpy(&request, (char *)arg + 2, sizeof(request));
		memcpy(&body, (char *)arg + 80, sizeof(body));
		if (request == REQ_PST_FD_REG)
			set_kind(*(int *)(uintptr_t)body, SOCKET);
	}
	return fail(n);
}

static void *netmap_mmap(size_t size, int flags, int fd, off64_t off)
{
	uintptr_t at = 0;
	int n;

	if (in_child()) {
		errno = ENXIO;
		return MAP_FAILED;
	}
	if (flags & MAP_FIXED) {
		fprintf(stderr, "libpaste-netmap: a port's memory cannot be mapped at an address of the program's choice\n");
		errno = EINVAL;
		return MAP_FAILED;
	}
	n = core.mmap(fd, size, off, &at);
	if (n < 0) {
		errno = -n;
		return MAP_FAILED;
	}
	return (void *)at;
}

EXPORT void *mmap(void *addr, size_t size, int prot, int flags, int fd, off_t off)
{
	if (is_netmap(fd) && !(flags & MAP_ANONYMOUS))
		return netmap_mmap(size, flags, fd, off);
	return REAL(mmap)(addr, size, prot, flags, fd, off);
}

EXPORT void *mmap64(void *addr, size_t size, int prot, int flags, int fd, off64_t off)
{
	if (is_netmap(fd) && !(flags & MAP_ANONYMOUS))
		return netmap_mmap(size, flags, fd, off);
	return REAL(mmap64)(addr, size, prot, flags, fd, off);
}

/* A port's memory is the core's as long as there is the port. */
EXPORT int munmap(void *addr, size_t size)
{
	if (__atomic_load_n(&netmap_files, __ATOMIC_RELAXED) && !forked && core.unmap((uintptr_t)addr, size))
		return 0;
	return REAL(munmap)(addr, size);
}

/* What the core does not close itself is closed by the C library. */
static int forget(int fd)
{
	int kind = kind_of(fd), n = 0;

	if (kind == ORDINARY)
		return 0;
	set_kind(fd, ORDINARY);
	epoll_forget(fd);
	if (!forked)
		n = core.close(fd);
	return n;
}

EXPORT int close(int fd)
{
	int n = forget(fd);

	if (n > 0)
		return 0;
	return n < 0 ? fail(n) : REAL(close)(fd);
}

/* A second descriptor for the same file is more than the core knows of. */
static int cannot_dup(int fd)
{
	if (!is_netmap(fd))
		return 0;
	fprintf(stderr, "libpaste-netmap: descriptor %d is /dev/netmap, which cannot be duplicated: open it again\n", fd);
	errno = EINVAL;
	return 1;
}

EXPORT int dup(int fd)
{
	return cannot_dup(fd) ? -1 : REAL(dup)(fd);
}

EXPORT int dup2(int fd, int to)
{
	if (cannot_dup(fd))
		return -1;
	if (fd != to && kind_of(to) != ORDINARY)
		close(to);
	return REAL(dup2)(fd, to);
}

EXPORT int dup3(int fd, int to, int flags)
{
	if (cannot_dup(fd))
		return -1;
	if (fd != to && kind_of(to) != ORDINARY)
		close(to);
	return REAL(dup3)(fd, to, flags);
}
