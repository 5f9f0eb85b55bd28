#include "nm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void die(const char *what)
{
	perror(what);
	exit(1);
}

int nm_request(int fd, int type, const char *name, void *body)
{
	struct nm_header h = {.version = NM_API, .reqtype = type, .body = (uintptr_t)body};

	strncpy(h.name, name, sizeof(h.name) - 1);
	return ioctl(fd, NIOCCTRL, &h);
}

struct nm_port nm_open(const char *name, const struct nm_register *reg)
{
	struct nm_port p = {.reg = *reg};

	if ((p.fd = open("/dev/netmap", O_RDWR)) < 0)
		die("/dev/netmap");
	if (nm_request(p.fd, REQ_REGISTER, name, &p.reg))
		die(name);
	p.mem = mmap(NULL, p.reg.memsize, PROT_READ | PROT_WRITE, MAP_SHARED, p.fd, 0);
	if (p.mem == MAP_FAILED)
		die("mmap");
	p.nif = AT(struct nm_if, p.mem, p.reg.offset);
	return p;
}

void nm_close(struct nm_port *p)
{
	if (munmap(p->mem, p->reg.memsize))
		die("munmap");
	if (close(p->fd))
		die("close");
}

static int failed, done;

void expect(const char *what, int result, int want)
{
	int got = result < 0 ? errno : 0;

	done++;
	if (got == want)
		return;
	failed++;
	printf("%s: %s, want %s\n", what, got ? strerror(got) : "success", want ? strerror(want) : "success");
}

void expect_true(const char *what, int yes)
{
	done++;
	if (!yes) {
		failed++;
		printf("%s: it is not so\n", what);
	}
}

int nm_result(void)
{
	printf("%d of %d failed\n", failed, done);
	return failed != 0;
}

int device(void)
{
	int fd = open("/dev/netmap", O_RDWR);

	if (fd < 0)
		die("/dev/netmap");
	return fd;
}

int on_new(int type, const char *name, void *body)
{
	int fd = device(), n = nm_request(fd, type, name, body), e = errno;

	close(fd);
	errno = e;
	return n;
}

int registering(const char *name, struct nm_register reg)
{
	return on_new(REQ_REGISTER, name, &reg);
}

int nm_raw(struct nm_header h)
{
	int fd = device(), n = ioctl(fd, NIOCCTRL, &h), e = errno;

	close(fd);
	errno = e;
	return n;
}
