#pragma once
// Linux interfaces that Glibc's module leaves out. Never include <linux/if.h> or <linux/in6.h> here: they define Glibc's
// structures again.
#include <features.h> // before any kernel header, or its types clash with Glibc's module
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/capability.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/eventfd.h>
#include <linux/bpf.h>
#include <linux/errqueue.h>
#include <linux/ethtool.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include "route_mtu.h"

// ioctl(2) is variadic, and the request numbers are casts.
static inline int tund_ioctl(int descriptor, unsigned long request, void *argument) {
    return ioctl(descriptor, request, argument);
}
static inline int tund_ioctl_value(int descriptor, unsigned long request, unsigned long value) {
    return ioctl(descriptor, request, value);
}
static const unsigned long tund_TUNSETIFF = TUNSETIFF;
static const unsigned long tund_TUNGETIFF = TUNGETIFF;
static const unsigned long tund_TUNSETOWNER = TUNSETOWNER;
static const unsigned long tund_TUNSETOFFLOAD = TUNSETOFFLOAD;
static const unsigned long tund_TUNSETVNETHDRSZ = TUNSETVNETHDRSZ;
// Linux 5.7
#ifndef TUNGETDEVNETNS
#define TUNGETDEVNETNS _IO('T', 227)
#endif
static const unsigned long tund_TUNGETDEVNETNS = TUNGETDEVNETNS;

// bpf(2) has no wrapper in Glibc, and its argument is a union of unnamed structures, whose unused bytes must be zero.
static inline int tund_bpf_ring_buffer(unsigned size) {
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof(attributes));
    attributes.map_type = BPF_MAP_TYPE_RINGBUF;
    attributes.max_entries = size;
    memcpy(attributes.map_name, "tund_merged", sizeof("tund_merged"));
    return (int)syscall(__NR_bpf, BPF_MAP_CREATE, &attributes, sizeof(attributes));
}
static inline int tund_bpf_socket_filter(const void *instructions, unsigned count) {
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof(attributes));
    attributes.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
    attributes.insns = (unsigned long)instructions;
    attributes.insn_cnt = count;
    attributes.license = (unsigned long)"";
    memcpy(attributes.prog_name, "tund_merged", sizeof("tund_merged"));
    return (int)syscall(__NR_bpf, BPF_PROG_LOAD, &attributes, sizeof(attributes));
}
static inline int tund_bpf_shared_number(void) {
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof(attributes));
    attributes.map_type = BPF_MAP_TYPE_ARRAY;
    attributes.key_size = attributes.value_size = 4;
    attributes.max_entries = 1;
    attributes.map_flags = BPF_F_MMAPABLE;
    memcpy(attributes.map_name, "tund_interface", sizeof("tund_interface"));
    return (int)syscall(__NR_bpf, BPF_MAP_CREATE, &attributes, sizeof(attributes));
}
static const unsigned tund_bpf_busy = BPF_RINGBUF_BUSY_BIT;
static const int tund_bpf_record_header = BPF_RINGBUF_HDR_SZ;
static const int tund_bpf_no_wake_up = BPF_RB_NO_WAKEUP;
static const int tund_skb_length = offsetof(struct __sk_buff, len);
static const int tund_skb_interface = offsetof(struct __sk_buff, ifindex);
static const int tund_skb_gso_size = offsetof(struct __sk_buff, gso_size);

// Linux 6.2
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
static const int tund_TUN_F_USO4 = TUN_F_USO4;
static const int tund_TUN_F_USO6 = TUN_F_USO6;

// struct ifreq's part that TUNSETIFF reads and writes; the union behind the flags is 24 bytes in all.
struct tund_ifreq {
    char name[16];
    short flags;
    char rest[22];
};

// struct ifreq as SIOCETHTOOL reads it.
static inline int tund_ethtool(int socket, const char *interface, void *command) {
    struct {
        char name[16];
        void *data;
        char rest[16];
    } request;
    memset(&request, 0, sizeof(request));
    strncpy(request.name, interface, sizeof(request.name) - 1);
    request.data = command;
    return ioctl(socket, 0x8946 /* SIOCETHTOOL */, &request);
}
static const unsigned tund_ETHTOOL_GSSET_INFO = ETHTOOL_GSSET_INFO;
static const unsigned tund_ETHTOOL_GSTRINGS = ETHTOOL_GSTRINGS;
static const unsigned tund_ETHTOOL_GFEATURES = ETHTOOL_GFEATURES;
static const int tund_ETH_SS_FEATURES = ETH_SS_FEATURES;
static const int tund_ETH_GSTRING_LEN = ETH_GSTRING_LEN;

// Glibc's, but hidden without _GNU_SOURCE. The sets are bit strings, as the kernel has them.
const char *strerrorname_np(int code);
int pthread_setname_np(unsigned long thread, const char *name);
int setns(int descriptor, int type);
int setresuid(unsigned real, unsigned effective, unsigned saved);
int setresgid(unsigned real, unsigned effective, unsigned saved);
int getresuid(unsigned *real, unsigned *effective, unsigned *saved);
int getresgid(unsigned *real, unsigned *effective, unsigned *saved);
int setgroups(size_t count, const unsigned *groups);
int sched_getaffinity(int process, unsigned long size, void *set);
int sched_setaffinity(int process, unsigned long size, const void *set);

static const int tund_CLONE_NEWNET = 0x40000000; // <linux/sched.h> clashes with Glibc's
// <bits/socket_type.h>: the module that Swift finds its enumerators in is another one from one compilation to the next.
static const int tund_SOCK_DGRAM = 2;
static const int tund_SOCK_RAW = 3;
static const int tund_SOCK_NONBLOCK = 04000;
static const int tund_SOCK_CLOEXEC = 02000000;

// Enumerators that Swift sees under other names.
static const __rlimit_resource_t tund_RLIMIT_MEMLOCK = RLIMIT_MEMLOCK;
static const __rlimit_resource_t tund_RLIMIT_AS = RLIMIT_AS;
static const __rlimit_resource_t tund_RLIMIT_NOFILE = RLIMIT_NOFILE;
