#define _GNU_SOURCE
#include "preload.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct core core;
unsigned char kinds[DESCRIPTORS];
int wakes[DESCRIPTORS];
int netmap_files;
int forked;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int loaded;

void *real_lookup(const char *name)
{
	void *f = dlsym(RTLD_NEXT, name);

	if (!f) {
		fprintf(stderr, "libpaste-netmap: the C library has no %s\n", name);
		abort();
	}
	return f;
}

int fail(int n)
{
	if (n >= 0)
		return n;
	errno = -n;
	return -1;
}

void set_kind(int fd, enum kind k)
{
	unsigned char old = __atomic_exchange_n(&kinds[fd], k, __ATOMIC_ACQ_REL);

	__atomic_add_fetch(&netmap_files, (k == NETMAP) - (old == NETMAP), __ATOMIC_RELAXED);
}

/* The core has threads of its own, of which a child has none. */
static void after_fork(void)
{
	forked = 1;
}

int in_child(void)
{
	static int told;

	if (!forked)
		return 0;
	if (!__atomic_exchange_n(&told, 1, __ATOMIC_RELAXED))
		fprintf(stderr,
			"libpaste-netmap: process %d is a fork of one that had opened /dev/netmap, and cannot use it: fork before the first open, or exec\n",
			(int)getpid());
	return 1;
}

/* The core lies next to this library. */
static void load(void)
{
	static const char name[] = "libpaste-netmap-core.so";
	char path[4096];
	sigset_t all, before;
	Dl_info me;
	void *so;
	char *slash;
	size_t i;
	const struct {
		const char *name;
		void *to;
	} parts[] = {
		{"paste_open", &core.open},     {"paste_ioctl", &core.ioctl}, {"paste_wake", &core.wake},
		{"paste_mmap", &core.mmap},     {"paste_unmap", &core.unmap},
		{"paste_close", &core.close},   {"paste_poll", &core.poll},
	};

	if (!dladdr((void *)load, &me) || strlen(me.dli_fname) + sizeof(name) >= sizeof(path)) {
		fprintf(stderr, "libpaste-netmap: cannot find out where it lies\n");
		return;
	}
	strcpy(path, me.dli_fname);
	slash = strrchr(path, '/');
	strcpy(slash ? slash + 1 : path, name);
	/* The core's threads inherit the mask: they never run the program's handlers. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	so = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	for (i = 0; so && i < sizeof(parts) / sizeof(parts[0]); i++) {
		void *f = dlsym(so, parts[i].name);

		memcpy(parts[i].to, &f, sizeof(f));
		if (!f)
			so = NULL;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!so) {
		fprintf(stderr, "libpaste-netmap: %s\n", dlerror());
		return;
	}
	pthread_atfork(NULL, NULL, after_fork);
	loaded = 1;
}

int core_load(void)
{
	if (in_child())
		return ENXIO;
	pthread_once(&once, load);
	return loaded ? 0 : ENXIO;
}
