#pragma once
#include <features.h>
#include <unistd.h>
#include <linux/rtnetlink.h>

// The MTU that this host's own route to a destination has (ip-route(8), "mtu"), whatever ICMP errors have said of the path: what the
// routing tables hold (RTM_F_FIB_MATCH, Linux 4.13) rather than what a packet would meet. 0: it has none, or nobody answers.
// Addresses are in network order. The kernel answers while it is asked, so the socket should be non-blocking.
static inline unsigned tund_route_mtu(int netlink, unsigned destination, unsigned source, unsigned mark, unsigned interface) {
    struct {
        struct nlmsghdr header;
        struct rtmsg route;
        struct {
            struct rtattr attribute;
            unsigned value;
        } values[4];
    } request = {
        .header = {.nlmsg_len = sizeof request, .nlmsg_type = RTM_GETROUTE, .nlmsg_flags = NLM_F_REQUEST},
        .route = {.rtm_family = 2 /* AF_INET */, .rtm_dst_len = 32, .rtm_src_len = 32, .rtm_flags = RTM_F_FIB_MATCH},
        .values = {
            {{sizeof request.values[0], RTA_DST}, destination},
            {{sizeof request.values[0], RTA_SRC}, source},
            {{sizeof request.values[0], RTA_MARK}, mark},
            {{sizeof request.values[0], RTA_OIF}, interface},
        },
    };
    if (write(netlink, &request, sizeof request) < 0) return 0;
    union {
        struct nlmsghdr header;
        char bytes[4096];
    } answer;
    ssize_t received = read(netlink, &answer, sizeof answer);
    if (received < (ssize_t)sizeof(struct nlmsghdr)) return 0;
    unsigned length = (unsigned)received;
    if (!NLMSG_OK(&answer.header, length) || answer.header.nlmsg_type != RTM_NEWROUTE) return 0;
    struct rtmsg *route = (struct rtmsg *)NLMSG_DATA(&answer.header);
    int rest = (int)RTM_PAYLOAD(&answer.header);
    for (struct rtattr *attribute = RTM_RTA(route); RTA_OK(attribute, rest); attribute = RTA_NEXT(attribute, rest)) {
        if (attribute->rta_type != RTA_METRICS) continue;
        int inside = (int)RTA_PAYLOAD(attribute);
        for (struct rtattr *metric = (struct rtattr *)RTA_DATA(attribute); RTA_OK(metric, inside);
             metric = RTA_NEXT(metric, inside))
            if (metric->rta_type == RTAX_MTU && RTA_PAYLOAD(metric) == sizeof(unsigned))
                return *(unsigned *)RTA_DATA(metric);
    }
    return 0;
}
