/* A signal may arrive while a thread of the program is in the core.
 *
 * It may find a stack of Go's there, which is too small for a handler: each handler
 * runs on the thread's alternate stack, which Go gives to threads that have none.
 *
 * And it is to end the wait of which the core's look was a part, as it would in the
 * kernel: so handlers are called by ours, which notes that one was. */
#define _GNU_SOURCE
#include "preload.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

REAL_DECL(int, sigaction, (int, const struct sigaction *, struct sigaction *));

__thread unsigned signals_seen;

static struct sigaction wanted[NSIG]; /* what the program has set */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void on_signal(int sig, siginfo_t *info, void *context)
{
	const struct sigaction *w = &wanted[sig];

	signals_seen++;
	if (w->sa_flags & SA_SIGINFO)
		w->sa_sigaction(sig, info, context);
	else
		w->sa_handler(sig);
}

static int replace(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction ours, before, had = wanted[sig];
	int n;

	if (!act) {
		n = REAL(sigaction)(sig, NULL, &before);
	} else if (act->sa_handler == SIG_DFL || act->sa_handler == SIG_IGN) {
		n = REAL(sigaction)(sig, act, &before);
	} else {
		ours = wanted[sig] = *act;
		ours.sa_sigaction = on_signal;
		ours.sa_flags |= SA_ONSTACK | SA_SIGINFO;
		n = REAL(sigaction)(sig, &ours, &before);
		if (n)
			wanted[sig] = had;
	}
	if (!n && old)
		*old = before.sa_flags & SA_SIGINFO && before.sa_sigaction == on_signal ? had : before;
	return n;
}

EXPORT int sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	sigset_t all, mask;
	int n, e;

	if (sig <= 0 || sig >= NSIG) {
		errno = EINVAL;
		return -1;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &mask);
	pthread_mutex_lock(&lock);
	n = replace(sig, act, old);
	e = errno;
	pthread_mutex_unlock(&lock);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	errno = e;
	return n;
}

static sighandler_t set(int sig, sighandler_t handler, int flags)
{
	struct sigaction act = {.sa_handler = handler, .sa_flags = flags}, old;

	sigemptyset(&act.sa_mask);
	return sigaction(sig, &act, &old) ? SIG_ERR : old.sa_handler;
}

/* The C library's signal does not go through sigaction as we see it. */
EXPORT sighandler_t signal(int sig, sighandler_t handler)
{
	return set(sig, handler, SA_RESTART);
}

EXPORT sighandler_t bsd_signal(int sig, sighandler_t handler)
{
	return set(sig, handler, SA_RESTART);
}

EXPORT sighandler_t __sysv_signal(int sig, sighandler_t handler)
{
	return set(sig, handler, SA_RESETHAND | SA_NODEFER);
}
