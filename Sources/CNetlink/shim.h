#pragma once
// libnl 3: rtnetlink objects for links, addresses and routes.
#include <features.h> // before any kernel header, or its types clash with Glibc's module
#include <netlink/netlink.h>
#include <netlink/errno.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/inet6.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
