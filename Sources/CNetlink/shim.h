#pragma once
// libnl 3: rtnetlink objects for links, addresses and routes.
#include <features.h> // before any kernel header, or its types clash with Glibc's module
#include <netlink/netlink.h>
#include <netlink/attr.h>
#include <netlink/handlers.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/inet6.h>
#include <netlink/route/link/ipip.h>
#include <netlink/route/link/sit.h>
#include <netlink/route/link/vrf.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <linux/nexthop.h> // nexthop objects, which libnl 3.7 has no type for

// Glibc's <bits/socket.h> before 2.37 and every userspace kernel header lack it.
#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif
