"""What the figures say: tables, and the targets.

A cell is the median of the rounds (least–most) and the median of the ratios to the base contender in the same round.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from contenders import CONTENDERS, SECTIONS

#: Part of the CPUs that others may use before a run counts as disturbed.
DISTURBED = 0.1


@dataclass
class Table:
    title: str
    rows: list[list[str]]


class Results:
    """One campaign's figures, looked up by what they are."""

    def __init__(self, raw: dict, base: str = "veth"):
        self.raw = raw
        self.base = base
        self._figures = {
            (run["section"], run["contender"], run["load"], run["round"]): run["figures"]
            for run in raw["runs"]
            if "figures" in run
        }

    def contenders(self, section: str) -> list[str]:
        present = {contender for where, contender, *_ in self._figures if where == section}
        return [key for key in CONTENDERS if key in present]

    def figures(self, section: str, contender: str, *loads: str) -> dict[int, dict]:
        """A load's figures by round; of several loads the first that has any."""
        for load in loads:
            found = {
                number: figures
                for (where, who, what, number), figures in self._figures.items()
                if (where, who, what) == (section, contender, load)
            }
            if found:
                return found
        return {}

    def series(self, section: str, contender: str, metric: Metric) -> dict[int, float]:
        """A metric's values by round."""
        rounds = self.figures(section, contender, *metric.loads)
        found = {number: metric.value(figures) for number, figures in rounds.items()}
        return {number: value for number, value in found.items() if value is not None}

    def ratios(self, section: str, contender: str, metric: Metric, to: str | None = None) -> list[float]:
        """Ratios to another contender (the base) in the same rounds."""
        other = self.series(section, to or self.base, metric)
        mine = self.series(section, contender, metric)
        return [value / other[number] for number, value in mine.items() if other.get(number)]

    def steps(self, section: str, contender: str, size: int) -> list[dict]:
        """All steps of UDP at rising rate, each with its "round" and whether it was one of the "ladder"."""
        return [
            {"round": number, "ladder": ladder, **step}
            for number, figures in self.figures(section, contender, f"udp-{size}").items()
            for ladder, steps in (
                (True, figures["steps"]),
                (False, [figures[name] for name in ("twice", "unlimited") if name in figures]),
            )
            for step in steps
        ]


@dataclass(frozen=True)
class Metric:
    """A number in a load's figures: where it is and how it is written."""

    label: str
    loads: tuple[str, ...]
    path: str
    scale: float = 1
    ratio: bool = True

    def value(self, figures: dict) -> float | None:
        found: object = figures
        for name in self.path.split("."):
            if not isinstance(found, dict) or name not in found:
                return None
            found = found[name]
        return float(found) * self.scale if isinstance(found, (int, float)) else None


def _udp(size: int) -> tuple[str, str]:
    return f"udp-{size}", f"udp-{size}-flood"


TCP = Metric("1 stream", ("tcp-1",), "mbps", 1e-3)
UDP_UNLIMITED = Metric("received, sender unlimited", _udp(1400), "unlimited.received_mbps", 1e-3)
THROUGHPUT = (
    TCP,
    Metric("4 streams", ("tcp-4",), "mbps", 1e-3),
    Metric("both directions", ("tcp-both",), "mbps", 1e-3),
)
SEGMENTS = Metric("received", ("udp-segments",), "mbps", 1e-3)
SEGMENTS_MORE = (
    Metric("offered", ("udp-segments",), "offered_mbps", 1e-3, ratio=False),
    Metric("datagrams merged per read", ("udp-segments",), "datagrams_per_read", ratio=False),
)


def _udp_metrics(size: int) -> tuple[Metric, ...]:
    unit = "mbps" if size == 1400 else "kpps"
    scale = 1e-3 if size == 1400 else 1
    return (
        Metric("no loss up to", _udp(size), f"no_loss.received_{unit}", scale),
        Metric("at twice that", _udp(size), f"twice.received_{unit}", scale),
        Metric("sender unlimited", _udp(size), f"unlimited.received_{unit}", scale),
        Metric("offered then", _udp(size), f"unlimited.offered_{unit}", scale, ratio=False),
    )


ROUND_TRIPS = {
    load: (
        Metric("median", (load,), "p50_us"),
        Metric("99 %", (load,), "p99_us", ratio=False),
        Metric("99.9 %", (load,), "p999_us", ratio=False),
    )
    for load in ("rtt-idle", "rtt-loaded")
}
RTT_IDLE = ROUND_TRIPS["rtt-idle"][0]
RAW_SENDS = (
    Metric("TCP payload that as many packets carry, Gb/s", ("raw-sends",), "mbps", 1e-3),
    Metric("CPU a packet, ns", ("raw-sends",), "cpu_ns", ratio=False),
)
CPU = (
    Metric("program, user", ("tcp-1",), "user_seconds_per_gb", ratio=False),
    Metric("program, system", ("tcp-1",), "system_seconds_per_gb", ratio=False),
    Metric("program, user share %", ("tcp-1",), "user_share", 100, ratio=False),
    Metric("whole machine but other programs", ("tcp-1",), "machine_seconds_per_gb"),
)


def number(value: float) -> str:
    """Three digits that mean something."""
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}"


def cell(results: Results, section: str, contender: str, metric: Metric) -> str:
    values = list(results.series(section, contender, metric).values())
    if not values:
        return "–"
    text = number(median(values))
    if len(values) > 1:
        text += f" ({number(min(values))}–{number(max(values))})"
    if metric.ratio and contender != results.base and (ratios := results.ratios(section, contender, metric)):
        text += f", ×{median(ratios):.3f}" if median(ratios) < 1 else f", ×{median(ratios):.2f}"
    return text


def _table(results: Results, section: str, title: str, metrics: Iterable[Metric]) -> Table | None:
    contenders = results.contenders(section)
    metrics = [metric for metric in metrics if any(results.series(section, key, metric) for key in contenders)]
    rows = []
    for contender in contenders:
        cells = [cell(results, section, contender, metric) for metric in metrics]
        if any(text != "–" for text in cells):
            rows.append([CONTENDERS[contender].label, *cells])
    return Table(title, [["", *(metric.label for metric in metrics)], *rows]) if rows else None


def _lost(results: Results, section: str) -> Table | None:
    """Where the packets of an unlimited sender stay, in percent of those sent."""
    rows, places = {}, []
    for contender in results.contenders(section):
        shares = defaultdict(list)
        for figures in results.figures(section, contender, *_udp(1400)).values():
            step = figures["unlimited"]
            for place, count in {"received": step["received"], **step["lost"]}.items():
                shares[place].append(100 * count / step["sent"])
        rows[contender] = {place: median(values) for place, values in shares.items()}
        places += (place for place in rows[contender] if place not in places)
    body = [
        [CONTENDERS[key].label, *(f"{shares[place]:.1f}" if place in shares else "–" for place in places)]
        for key, shares in rows.items()
        if shares
    ]
    title = "UDP 1400 B, sender unlimited: where the packets end, % of those sent"
    return Table(title, [["", *places], *body]) if body else None


def tables(results: Results) -> dict[str, list[Table]]:
    """All tables by section."""
    found = {}
    for section in SECTIONS:
        made = [
            _table(results, section, "TCP, Gb/s", THROUGHPUT),
            _table(results, section, "UDP 1400 B received, Gb/s", _udp_metrics(1400)),
            _lost(results, section),
            *(_table(results, section, f"UDP {size} B received, 1000 packets/s", _udp_metrics(size)) for size in (512, 64)),
            _table(results, section, "UDP 1400 B in bursts (UDP_SEGMENT, UDP_GRO), Gb/s", (SEGMENTS, *SEGMENTS_MORE)),
            _table(results, section, "Round trip, idle, µs", ROUND_TRIPS["rtt-idle"]),
            _table(results, section, "Round trip beside a TCP stream, µs", ROUND_TRIPS["rtt-loaded"]),
            _table(results, section, "CPU seconds per GB, TCP 1 stream", CPU),
            _table(results, section, "A program that only sends through a raw socket", RAW_SENDS),
        ]
        if any(made):
            found[section] = [table for table in made if table]
    return found


@dataclass(frozen=True)
class Target:
    label: str
    #: ">=" or "<="
    sense: str
    limit: float
    #: The values of the rounds.
    values: Callable[[Results], list[float]]
    unit: str = ""

    def judge(self, results: Results) -> dict:
        """The target beside this run's value, for the terminal and the JSON."""
        values = self.values(results)
        judged = {"label": self.label, "sense": self.sense, "limit": self.limit, "unit": self.unit, "values": values}
        if values:
            judged["value"] = value = median(values)
            judged["met"] = value >= self.limit if self.sense == ">=" else value <= self.limit
        return judged


def _to(contender: str, other: str, metric: Metric) -> Callable[[Results], list[float]]:
    return lambda results: results.ratios("as-is", contender, metric, other)


def _rtt_above(results: Results) -> list[float]:
    wire = results.series("as-is", "veth", RTT_IDLE)
    mine = results.series("as-is", "tund", RTT_IDLE)
    return [value - wire[number] for number, value in mine.items() if number in wire]


def _twice(results: Results) -> list[float]:
    metric = Metric("", ("udp-1400",), "twice_ratio")
    return list(results.series("as-is", "tund", metric).values())


def _user_share(results: Results) -> list[float]:
    """Of all TCP loads of all rounds together: a tick is 10 ms, so that a single load is coarse."""
    loads = [results.figures("as-is", "tund", load) for load in ("tcp-1", "tcp-4", "tcp-both")]
    spent = [figures["cpu"] for load in loads for figures in load.values()]
    user, system = (sum(figures[kind] for figures in spent) for kind in ("user", "system"))
    return [100 * user / (user + system)] if user + system else []


TARGETS = (
    Target("TCP 1 stream / plain veth", ">=", 0.15, _to("tund", "veth", TCP)),
    Target("TCP 1 stream / socat", ">=", 6, _to("tund", "socat", TCP)),
    Target("TCP 1 stream, offloads on / off", ">=", 1.8, _to("tund", "tund-no-offload", TCP)),
    Target("UDP 1400 B received / plain veth, sender unlimited", ">=", 0.50, _to("tund", "veth", UDP_UNLIMITED)),
    Target("UDP 1400 B received at twice the no-loss rate / at that rate", ">=", 0.95, _twice),
    Target("round trip, idle, median: above plain veth", "<=", 100, _rtt_above, " µs"),
    Target("userspace share of tund's CPU time under TCP", "<=", 8, _user_share, " %"),
)


def judge(results: Results) -> list[dict]:
    return [target.judge(results) for target in TARGETS]


def targets_table(results: Results) -> Table:
    rows = [["", "target", "this run", ""]]
    for judged in judge(results):
        sense = {">=": "≥", "<=": "≤"}[judged["sense"]]
        row = [judged["label"], f"{sense} {judged['limit']:g}{judged['unit']}"]
        if "value" not in judged:
            rows.append([*row, "not measured", ""])
            continue
        values = judged["values"]
        spread = f" ({number(min(values))}–{number(max(values))})" if len(values) > 1 else ""
        rows.append([*row, f"{number(judged['value'])}{judged['unit']}{spread}", "met" if judged["met"] else "MISSED"])
    return Table("Targets (veth as it is)", rows)


def remarks(results: Results) -> list[str]:
    """What a reader should know before believing a figure."""
    raw, found = results.raw, []
    for key, why in sorted(raw["left_out"].items()):
        found.append(f"left out: {CONTENDERS[key].label}: {why}")
    busy = [entry["cpus"] for entry in raw["others"]]
    if busy and max(busy) > DISTURBED * raw["machine"]["cores"]:
        found.append(
            f"other programs used {median(busy):.2f} CPUs of {raw['machine']['cores']} (up to {max(busy):.2f}) meanwhile:"
            " rates suffer more than ratios, and loss most of all"
        )
    for run in raw["runs"]:
        where = f"{CONTENDERS[run['contender']].label}, {SECTIONS[run['section']]}, round {run['round'] + 1}, {run['load']}"
        if "error" in run:
            found.append(f"{where}: failed: {run['error'].splitlines()[0]}")
            continue
        figures = run["figures"]
        found += (f"{where}: repeated: {failure}" for failure in figures.get("retried", ()))
        if stalled := figures.get("stalled_ms"):
            found.append(f"{where}: no byte left the sender for {stalled} ms")
        if lost := figures.get("lost") if run["load"].startswith("rtt") else None:
            found.append(f"{where}: {lost} of {figures['samples'] + lost} round trips lost")
        if figures.get("steps") and "no_loss" not in figures:
            found.append(f"{where}: no rate without loss")
        if figures.get("twice") and figures["twice"]["offered_kpps"] < 1.8 * figures["no_loss"]["offered_kpps"]:
            offered = figures["twice"]["offered_kpps"] / figures["no_loss"]["offered_kpps"]
            found.append(f"{where}: for twice the lossless rate the sender offered {offered:.2f} times that rate only")
        for step in figures.get("steps", ()):
            if step["offered_kpps"] < 0.98 * step["asked_kpps"] and step is not figures["steps"][-1]:
                found.append(f"{where}: asked for {step['asked_kpps']} kpps, the sender offered {step['offered_kpps']}")
    counted: dict[str, int] = defaultdict(int)
    for entry in raw["ends"]:
        if "error" in entry:
            where = f"{CONTENDERS[entry['contender']].label}, {SECTIONS[entry['section']]}, round {entry['round'] + 1}"
            found.append(f"{where}: at its end: {entry['error'].splitlines()[0]}")
        for line in entry["odd"]:
            kind, name, count, *_ = line.split()
            counted[f"{kind} {name}"] += int(count)
    found += (f"tund counted {name}: {count}" for name, count in sorted(counted.items()))
    return found


def machine_line(results: Results) -> str:
    facts = results.raw["machine"]
    return (
        f"tund {facts['tund']}, Linux {facts['kernel']}, {facts['cores']} × {facts['cpu']}, {facts['congestion_control']},"
        f" {facts['date'][:10]}; {results.raw['rounds']} round{'s' * (results.raw['rounds'] > 1)}"
    )


def text(results: Results) -> str:
    """Everything, for a terminal."""
    lines = [machine_line(results)]
    lines.append(f"median of the rounds (least–most), × = ratio to {CONTENDERS[results.base].label} in the same round")
    for section, made in tables(results).items():
        lines += ["", f"== {SECTIONS[section]} =="]
        for table in made:
            lines += ["", table.title, *_aligned(table.rows)]
    if results.base == "veth":
        targets = targets_table(results)
        lines += ["", f"== {targets.title} ==", "", *_aligned(targets.rows)]
    if found := remarks(results):
        lines += ["", "== Remarks ==", "", *found]
    return "\n".join(lines)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  " + "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]


def markdown(results: Results, heading: str = "##") -> str:
    """The tables for a page of documentation."""
    base = CONTENDERS[results.base].label
    lines = [f"{machine_line(results)}. Median (least–most), × = ratio to {base} in the same round."]
    if results.base == "veth":
        targets = targets_table(results)
        lines += ["", f"{heading} {targets.title}", "", *_piped(targets.rows)]
    for section, made in tables(results).items():
        lines += ["", f"{heading} {SECTIONS[section].capitalize()}"]
        for table in made:
            lines += ["", f"**{table.title}**", "", *_piped(table.rows)]
    if found := remarks(results):
        lines += ["", f"{heading} Remarks", "", *(f"- {remark}" for remark in found)]
    return "\n".join(lines) + "\n"


def _piped(rows: list[list[str]]) -> list[str]:
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return [head, "|---" * len(rows[0]) + "|", *body]
