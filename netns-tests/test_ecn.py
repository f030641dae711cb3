"""The ECN field across the tunnel, all sixteen pairs, and the DSCP beside it.

    far end ------ eth0 host, tund0 --- packet socket
    outer TOS      both headers         inner traffic class

Encapsulation: outer ECN = inner ECN, but CE becomes ECT(0) as in the kernel (RFC 3168, 9.1.1, full functionality).
Decapsulation: RFC 6040, 4.2. The DSCP goes outward with --tos inherit and never inward.
"""

import pytest

from packets import DOMAIN, HERE, IP, THERE, IPv6, in_ipv4, inner
from wire import HostOnAWire

NOT_ECT, ECT1, ECT0, CE = range(4)
NAMES = {NOT_ECT: "Not-ECT", ECT1: "ECT(1)", ECT0: "ECT(0)", CE: "CE"}
EF = 0xB8  # a DSCP with bits at both ends: expedited forwarding, 46 << 2


@pytest.fixture(scope="module")
def host_with(one_at_a_time):
    return one_at_a_time(lambda lab, options: HostOnAWire(lab, f"{DOMAIN} {options}"))


#: ENCAPSULATION[rule][inner]
ENCAPSULATION = {"sit": {NOT_ECT: NOT_ECT, ECT1: ECT1, ECT0: ECT0, CE: ECT0},
                 "rfc6040": {NOT_ECT: NOT_ECT, ECT1: ECT1, ECT0: ECT0, CE: CE}}  # fmt: skip


@pytest.mark.parametrize("inner_ecn", NAMES, ids=NAMES.values())
@pytest.mark.parametrize("dscp", [0, EF, 0xFC, 0x04], ids=hex)
@pytest.mark.parametrize(
    "options, outer_dscp",
    [
        ("", None),
        ("--tos inherit", None),
        ("--tos 0", 0),
        ("--tos 184", EF),
        ("--tos 255", 0xFC),  # the ECN bits of a fixed TOS mean nothing
        ("--tos 1", 0),
        ("--ecn sit", None),
        ("--ecn rfc6040", None),
        ("--ecn rfc6040 --tos 184", EF),
    ],
)
def test_encapsulation(host_with, options, outer_dscp, dscp, inner_ecn):
    """outer_dscp None: the inner one."""
    outer_ecn = ENCAPSULATION["rfc6040" if "rfc6040" in options else "sit"][inner_ecn]
    packet = inner(HERE, THERE, tc=dscp | inner_ecn)
    [sent] = host_with(options).observe(from_host=[packet]).to_wire
    assert IP(sent).tos == (dscp if outer_dscp is None else outer_dscp) | outer_ecn
    assert bytes(IP(sent).payload) == bytes(packet), "the inner header stays as it is"


#: DECAPSULATION[inner][outer]: the ECN field handed on; None: dropped.
DECAPSULATION = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT1: NOT_ECT, ECT0: NOT_ECT, CE: None},
    ECT1: {NOT_ECT: ECT1, ECT1: ECT1, ECT0: ECT1, CE: CE},
    ECT0: {NOT_ECT: ECT0, ECT1: ECT1, ECT0: ECT0, CE: CE},
    CE: {NOT_ECT: CE, ECT1: CE, ECT0: CE, CE: CE},
}
PAIRS = [(inside, outside, result) for inside, row in DECAPSULATION.items() for outside, result in row.items()]


@pytest.mark.parametrize("inner_ecn, outer_ecn, result", PAIRS, ids=[f"{NAMES[i]}, outer {NAMES[o]}" for i, o, _ in PAIRS])
@pytest.mark.parametrize("inner_dscp, outer_dscp", [(0, 0), (0, EF), (EF, 0), (0xFC, 0x04)], ids=hex)
@pytest.mark.parametrize("options", ["", "--ecn rfc6040"])
def test_decapsulation(host_with, options, inner_dscp, outer_dscp, inner_ecn, outer_ecn, result):
    """One table: the kernel's is RFC 6040's (figure 4), which goes for whatever the other end does."""
    packet = inner(tc=inner_dscp | inner_ecn, fl=0xFFFFF)
    seen = host_with(options).observe(from_wire=[in_ipv4(packet, tos=outer_dscp | outer_ecn)])
    if result is None:
        assert seen.counters == {"downlink.ecn": 1} and not seen.to_host and not seen.to_wire
    else:
        [arrived] = map(IPv6, seen.to_host)
        assert (arrived.tc, arrived.fl) == (inner_dscp | result, 0xFFFFF)
        assert bytes(arrived)[4:] == bytes(packet)[4:], "nothing but the ECN field changes"
