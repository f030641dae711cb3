// What raw sockets cost by themselves: sends packets of a full MTU on one, 64 per system call, as fast as it can, and does
// nothing else. The other end lets its kernel look the receiving socket up and then forgets them. No tunnel that sends
// through a raw socket can be faster than this.
//
//     rawsend sink                        waits for SIGTERM
//     rawsend send LOCAL REMOTE SECONDS   prints {"packets": N, "seconds": S, "cpu_ns": T}
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/filter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PROTOCOL = 253 /* for experiments, RFC 3692 */, BATCH = 64, LENGTH = 1480 };

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static int fail(const char *what) {
    perror(what);
    return 1;
}

static int sink(int raw) {
    struct sock_filter nothing = {BPF_RET | BPF_K, 0, 0, 0};
    struct sock_fprog program = {1, &nothing};
    if (setsockopt(raw, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0) return fail("SO_ATTACH_FILTER");
    puts("ready");
    fflush(stdout);
    pause();
    return 0;
}

static int send_all(int raw, const char *local, const char *remote, double duration) {
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(local)};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(remote)};
    // Bound and connected as a tunnel's own sending socket is.
    if (bind(raw, (struct sockaddr *)&from, sizeof from) < 0) return fail("bind");
    if (connect(raw, (struct sockaddr *)&from, sizeof from) < 0) return fail("connect");
    static char packets[BATCH][LENGTH];
    struct iovec slices[BATCH];
    struct mmsghdr messages[BATCH] = {0};
    for (int i = 0; i < BATCH; i++) {
        slices[i] = (struct iovec){packets[i], LENGTH};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &slices[i], .msg_iovlen = 1};
    }
    long sent = 0;
    double begin = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_THREAD_CPUTIME_ID), now;
    do {
        int count = sendmmsg(raw, messages, BATCH, 0);
        if (count < 0) return fail("sendmmsg");
        sent += count;
        now = seconds(CLOCK_MONOTONIC);
    } while (now - begin < duration);
    cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - cpu;
    printf("{\"packets\": %ld, \"seconds\": %.3f, \"cpu_ns\": %.0f}\n", sent, now - begin, cpu * 1e9);
    return 0;
}

int main(int count, char **words) {
    int raw = socket(AF_INET, SOCK_RAW, PROTOCOL);
    if (raw < 0) return fail("socket");
    if (count == 2 && !strcmp(words[1], "sink")) return sink(raw);
    if (count == 5 && !strcmp(words[1], "send")) return send_all(raw, words[2], words[3], atof(words[4]));
    fprintf(stderr, "usage: rawsend sink | send LOCAL REMOTE SECONDS\n");
    return 64;
}
