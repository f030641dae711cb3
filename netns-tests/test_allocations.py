"""The packet path allocates nothing and counts no references.

      a 10.0.0.1 ------- wire ------- 10.0.0.2 b
      tund, its calls counted         tund
"""

import os
import platform
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from lab import TUND
from test_offloads import merge

PACKETS = 100_000
SLOT = struct.Struct("lll")


@pytest.fixture(scope="module")
def counter(tmp_path_factory) -> Path:
    """The preloaded library, compiled."""
    compiler = os.environ.get("CC") or shutil.which("clang") or shutil.which("cc")
    library = tmp_path_factory.mktemp("count") / "count_calls.so"
    source = Path(__file__).with_name("count_calls.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-w", "-o", library, source], check=True, timeout=60)
    return library


def calls(file: Path) -> dict[int, tuple[int, int]]:
    """Thread id: (calls of the allocator, calls of reference counting)."""
    return {thread: (allocations, references) for thread, allocations, references in SLOT.iter_unpack(file.read_bytes()) if thread}


#: Ways to read the TUN, and the first kernel that has each.
READINGS = {"multishot": (6, 7), "reads": (6, 4), "burst": (6, 0)}


@pytest.mark.parametrize("merged", [False, True], ids=["", "merged on arrival"])
@pytest.mark.parametrize("reading", READINGS)
def test_no_call_per_packet(lab, counter, tmp_path, reading, merged):
    running = tuple(int(part) for part in platform.release().split(".")[:2])
    if running < READINGS[reading]:
        pytest.skip(f"Linux {platform.release()} cannot read a TUN like this")
    if merged and reading != "multishot":
        pytest.skip("how the TUN is read has nothing to do with it")
    a, b = lab.underlay({"a": "10.0.0.1/24", "b": "10.0.0.2/24"})
    if merged:
        merge(a, lab.namespaces[0], "to-a")
    file = tmp_path / "counts"
    file.write_bytes(bytes(256 * SLOT.size))
    counted = lab.tund(
        a,
        f"--6rd-prefix fd00::/32 --workers 1 --tun-reading {reading}",
        through=["env", f"LD_PRELOAD={counter}", f"COUNT_CALLS={file}"],
    )
    assert not any("count_calls" in line for line in counted.err), counted.transcript()
    lab.tund(b, "--6rd-prefix fd00::/32 --workers 1")
    assert a.ping("fd00:0:a00:2::1", count=3)

    [worker] = [int(thread.name) for thread in counted.threads() if "worker" in (thread / "comm").read_text()]
    main = counted.pid
    before, packets_before = calls(file), counted.counters()
    listener = lab.process(b, "iperf3 --server --one-off --forceflush")
    listener.wait_until(lambda: any("listening" in line for line in listener.out), "iperf3 listening")
    # Both directions at once: data one way, data the other way, and acknowledgements both ways; on a slow machine, longer.
    for attempt in range(10):
        if attempt > 0:
            listener = lab.process(b, "iperf3 --server --one-off --forceflush")
            listener.wait_until(lambda: any("listening" in line for line in listener.out), "iperf3 listening")
        a.run("iperf3 --client fd00:0:a00:2::1 --bidir --time 3", timeout=60)
        packets_after, after = counted.counters(), calls(file)
        moved = [packets_after[name] - packets_before[name] for name in ("uplink.packets", "downlink.packets")]
        # What arrives merged is one packet for tund.
        enough = [PACKETS / 2, 3000 if merged else PACKETS / 2]
        if all(count > least for count, least in zip(moved, enough)):
            break
    assert all(count > least for count, least in zip(moved, enough)), moved
    # The control thread printed counters meanwhile: that the calls are counted at all is seen there.
    assert all(late > early for early, late in zip(before[main], after[main]))
    assert after.get(worker, (0, 0)) == before.get(worker, (0, 0))
    assert TUND.name == "tund"
