/* The floor of a call: two processes, a packet there and a packet back over a SEQPACKET pair, in C.
 *
 * For each line of standard input, a number of calls, it makes them one after the other and prints the nanoseconds
 * that all of them took. The packets are as large as those of the Python floor. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST = 18, ANSWER = 7, PACKET = 65536 };

static char packet[PACKET];

static void serve(int fd)
{
    while (recv(fd, packet, sizeof packet, 0) > 0)
        if (send(fd, packet, ANSWER, MSG_NOSIGNAL) != ANSWER)
            _exit(1);
    _exit(0);
}

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(void)
{
    int pair[2];
    long calls;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) != 0) {
        perror("socketpair");
        return 1;
    }
    if (fork() == 0) {
        close(pair[0]);
        serve(pair[1]);
    }
    close(pair[1]);
    while (scanf("%ld", &calls) == 1) {
        long long start = now();
        while (calls-- > 0)
            if (send(pair[0], packet, REQUEST, MSG_NOSIGNAL) != REQUEST || recv(pair[0], packet, PACKET, 0) != ANSWER)
                return 1;
        printf("%lld\n", now() - start);
        fflush(stdout);
    }
    close(pair[0]);
    wait(NULL);
    return 0;
}
