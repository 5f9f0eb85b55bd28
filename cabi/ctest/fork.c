/*
 * What becomes of children: one that was made before the first open of /dev/netmap
 * can use it, and so can what a child executes; one that was made afterwards cannot.
 * Ends with 0 if it is so.
 */
#include "nm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int waited(pid_t child)
{
	int status;

	return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int serves(void)
{
	struct nm_port p = nm_open("pst:0", &(struct nm_register){.mode = MODE_ALL});

	nm_close(&p);
	return 0;
}

int main(int argc, char **argv)
{
	struct nm_port p;
	pid_t child;

	if (argc > 1)
		return serves();
	if ((child = fork()) == 0)
		return serves();
	if (waited(child))
		return fprintf(stderr, "a child from before the first open failed\n");
	p = nm_open("pst:0", &(struct nm_register){.mode = MODE_ALL});
	if ((child = fork()) == 0) {
		struct pollfd f = {.fd = p.fd, .events = POLLIN};

		if (ioctl(p.fd, NIOCTXSYNC, NULL) == 0 || errno != ENXIO || poll(&f, 1, 0) != -1 || open("/dev/netmap", O_RDWR) != -1)
			_exit(1);
		/* Everything else works. */
		_exit(close(p.fd) || open("/dev/null", O_RDONLY) < 0);
	}
	if (waited(child))
		return fprintf(stderr, "a child from after the first open was served\n");
	if ((child = fork()) == 0) {
		execl(argv[0], argv[0], "again", NULL);
		_exit(1);
	}
	if (waited(child))
		return fprintf(stderr, "what a child executed failed\n");
	if (ioctl(p.fd, NIOCTXSYNC, NULL))
		return fprintf(stderr, "the parent was disturbed: %s\n", strerror(errno));
	nm_close(&p);
	return 0;
}
