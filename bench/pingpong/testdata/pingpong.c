/* Round trips of 64-byte messages between two processes over SOCK_SEQPACKET:
 * what an RPC over such a socket costs before anybody does anything with it.
 * Prints the nanoseconds that the given number of round trips took. */
#define _GNU_SOURCE
#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, WARM = 1000 };

static void pong(int fd)
{
	char b[SIZE];
	for (;;) {
		ssize_t n = recv(fd, b, sizeof b, 0);
		if (n <= 0)
			_exit(n < 0);
		if (send(fd, b, n, MSG_NOSIGNAL) != n)
			_exit(1);
	}
}

static void ping(int fd, long n)
{
	char b[SIZE] = {0};
	while (n-- > 0) {
		if (send(fd, b, sizeof b, MSG_NOSIGNAL) != sizeof b)
			err(1, "send");
		if (recv(fd, b, sizeof b, 0) != sizeof b)
			err(1, "recv");
	}
}

int main(int argc, char **argv)
{
	int fd[2], status;
	long n = argc == 2 ? atol(argv[1]) : 0;
	struct timespec t0, t1;

	if (n <= 0)
		errx(2, "usage: pingpong count");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd))
		err(1, "socketpair");
	pid_t pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fd[0]);
		pong(fd[1]);
	}
	close(fd[1]);
	ping(fd[0], WARM);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	ping(fd[0], n);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	close(fd[0]);
	if (waitpid(pid, &status, 0) != pid || status)
		errx(1, "the other side failed");
	printf("%lld\n", (t1.tv_sec - t0.tv_sec) * 1000000000LL + (t1.tv_nsec - t0.tv_nsec));
	return 0;
}
