/* The wall clock of one sandbox: the machine's own, and an offset that a test writes (tests/live/test_clock.py).
 *
 * Loaded into every program of the box by /etc/ld.so.preload. CLOCK_REALTIME moves, and the time of arrival of
 * a datagram, which journald goes by, as if somebody had set the clock; what the kernel itself does at such a
 * moment (TFD_TIMER_CANCEL_ON_SET of timerfd_create(2), on which calendar timers are set anew) does not happen,
 * and files have the machine's times.
 */
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *offset_sec;

__attribute__((constructor)) static void open_offset(void) {
	int fd = open("/srv/clock/offset", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	void *at = mmap(NULL, sizeof(*offset_sec), PROT_READ, MAP_SHARED, fd, 0);
	if (at != MAP_FAILED)
		offset_sec = at;
	close(fd);
}

int clock_gettime(clockid_t id, struct timespec *at) {
	int rc = (int)syscall(SYS_clock_gettime, id, at);
	if (rc == 0 && offset_sec && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		at->tv_sec += *offset_sec;
	return rc;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
	struct timespec now;
	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &now) < 0)
		return -1;
	at->tv_sec = now.tv_sec;
	at->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *at) {
	struct timespec now;
	if (clock_gettime(CLOCK_REALTIME, &now) < 0)
		return -1;
	if (at)
		*at = now.tv_sec;
	return now.tv_sec;
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
	ssize_t length = syscall(SYS_recvmsg, fd, message, flags);
	struct cmsghdr *one;
	struct timeval at;
	if (length < 0 || !offset_sec)
		return length;
	for (one = CMSG_FIRSTHDR(message); one; one = CMSG_NXTHDR(message, one))
		if (one->cmsg_level == SOL_SOCKET && one->cmsg_type == SCM_TIMESTAMP) {
			memcpy(&at, CMSG_DATA(one), sizeof(at));
			at.tv_sec += *offset_sec;
			memcpy(CMSG_DATA(one), &at, sizeof(at));
		}
	return length;
}
