"""Pictures of a result, as SVG that reads on white and on dark pages."""

from __future__ import annotations

from collections import defaultdict
from math import inf, log10
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator  # noqa: E402
from pingpong import PERCENTILES  # noqa: E402
from report import CPU, SEGMENTS, THROUGHPUT, UDP_UNLIMITED, Metric, Results, number  # noqa: E402

from contenders import CONTENDERS, SECTIONS  # noqa: E402

#: Mid-tones, as far from white as from black.
INK, FAINT = "#7d8590", "#9aa2ab"
TUND = "#e8590c"
COLOURS = {"veth": "#7d8590", "vxlan": "#2f81f7", "sit": "#2da44e", "socat": "#a45bd8", "tund": TUND}
#: Of tund with a switch turned.
VARIANT = "#f0a66f"
#: Lines of these only; more would be a thicket.
LINES = ("veth", "vxlan", "sit", "socat", "tund", "tund-busy-poll")

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tund",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "savefig.transparent": True,
    "figure.constrained_layout.use": True,
}


def draw(results: Results, folder: Path, kind: str = "svg") -> list[Path]:
    """Writes all plots that the result has figures for."""
    made = []
    with matplotlib.rc_context(STYLE):
        for section in SECTIONS:
            for name, plot in (("throughput", _throughput), ("udp", _udp), ("round-trip", _round_trip), ("cpu", _cpu)):
                if (figure := plot(results, section)) is not None:
                    made.append(folder / f"{name}-{section}.{kind}")
                    figure.savefig(made[-1], metadata={"Date": None} if kind == "svg" else None, dpi=100)
                    plt.close(figure)
    return made


def _colour(contender: str) -> str:
    return COLOURS.get(contender, VARIANT)


def _throughput(results: Results, section: str):
    """Bars: the ratio to the base, one panel a load."""
    metrics = [
        (title, metric)
        for title, metric in (
            *((f"TCP, {metric.label}", metric) for metric in THROUGHPUT),
            ("UDP 1400 B, unlimited", UDP_UNLIMITED),
            ("UDP, UDP_SEGMENT", SEGMENTS),
        )
        if len(_with(results, section, metric)) > 1 and results.series(section, results.base, metric)
    ]
    others = [key for key in results.contenders(section) if key != results.base]
    rows = [key for key in others if any(_ratios(results, section, key, metrics))]
    if not metrics or not rows:
        return None
    figure, panels = plt.subplots(
        1, len(metrics), sharey=True, squeeze=False, figsize=(2.0 + 2.0 * len(metrics), 1.3 + 0.3 * len(rows))
    )
    for panel, (title, metric) in zip(panels[0], metrics):
        base = median(results.series(section, results.base, metric).values())
        widest = 1.0
        for row, key in enumerate(rows):
            if not (ratios := results.ratios(section, key, metric)):
                continue
            middle = median(ratios)
            panel.barh(row, middle, height=0.62, color=_colour(key))
            if len(ratios) > 1:
                panel.plot([min(ratios), max(ratios)], [row, row], color=INK, linewidth=1.2, solid_capstyle="butt")
            _beside(panel, max(middle, max(ratios)), row, f"{middle:.2f}" if middle >= 0.1 else f"{middle:.3f}")
            widest = max(widest, *ratios)
        panel.axvline(1, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
        panel.set_xlim(0, 1.3 * widest)
        panel.set_title(title, pad=20)
        panel.text(0, 1.03, f"1 = {number(base)} Gb/s", transform=panel.transAxes, fontsize=9)
        panel.set_xticks([])
        for side in ("bottom", "left"):
            panel.spines[side].set_visible(False)
    panels[0][0].set_yticks(range(len(rows)), [CONTENDERS[key].label for key in rows])
    panels[0][0].invert_yaxis()
    _heading(figure, f"Throughput as a ratio to {CONTENDERS[results.base].label}, {SECTIONS[section]}")
    return figure


def _with(results: Results, section: str, metric: Metric) -> list[str]:
    return [key for key in results.contenders(section) if results.series(section, key, metric)]


def _ratios(results: Results, section: str, contender: str, metrics: list[tuple[str, Metric]]) -> list[float]:
    return [ratio for _, metric in metrics for ratio in results.ratios(section, contender, metric)]


def _beside(panel: Axes, x: float, y: float, text: str) -> None:
    panel.annotate(text, (x, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)


def _heading(figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, color=INK)


def _udp(results: Results, section: str):
    """Received against offered; where the line falls, the receiver lives for packets that it throws away."""
    sizes = [size for size in (1400, 512, 64) if any(results.figures(section, key, f"udp-{size}") for key in LINES)]
    if not sizes:
        return None
    figure, panels = plt.subplots(1, len(sizes), squeeze=False, sharey=True, figsize=(1.2 + 3.6 * len(sizes), 4.2))
    rates = [step[name] for size in sizes for key in LINES for step in results.steps(section, key, size) for name in _AXES]
    low, high = max(1.0, 0.8 * min(rates)), 1.15 * max(rates)
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if low <= tick <= high]
    for panel, size in zip(panels[0], sizes):
        panel.set(xscale="log", yscale="log", xlim=(low, high * 3), ylim=(low, high))
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(FixedLocator(ticks))
            axis.set_major_formatter(FixedFormatter([str(tick) for tick in ticks]))
            axis.set_minor_locator(NullLocator())
        panel.grid(True)
        panel.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        panel.set_title(f"{size} B")
        panel.set_xlabel("offered, 1000 packets/s")
        ends = []
        for key in LINES:
            if not (steps := results.steps(section, key, size)):
                continue
            line = _medians(steps)
            colour, width = _colour(key), 2.2 if key == "tund" else 1.5
            panel.plot(*zip(*line), color=colour, linewidth=width, zorder=3 if key == "tund" else 2)
            dots = [[step[name] for name in _AXES] for step in steps]
            panel.scatter(*zip(*dots), s=5, color=colour, alpha=0.45, linewidths=0)
            panel.scatter(*line[-1], s=26, facecolor="none", edgecolor=colour, linewidths=1.4, zorder=4)
            ends.append((line[-1], key))
        _label_ends(panel, ends)
    panels[0][0].set_ylabel("received, 1000 packets/s")
    _heading(figure, f"UDP received against offered, {SECTIONS[section]}; ring: sender unlimited")
    return figure


_AXES = ("offered_kpps", "received_kpps")


def _medians(steps: list[dict]) -> list[tuple[float, float]]:
    """One point a rate of the ladder, that of the unlimited sender last."""
    best: dict[tuple[float, int], dict] = {}
    for step in steps:
        # Steps at twice the lossless rate differ from round to round: dots, no points of the line.
        if not step["ladder"] and step["asked_kpps"]:
            continue
        # Of a rate that got a second chance, the better one.
        place = (step["asked_kpps"] or inf, step["round"])
        if place not in best or step["loss"] < best[place]["loss"]:
            best[place] = step
    found = defaultdict(list)
    for (asked, _), step in best.items():
        found[asked].append(step)
    rounds = len({step["round"] for step in steps})
    # What few rounds got to is no median.
    kept = [group for asked, group in sorted(found.items()) if 2 * len(group) > rounds or asked == inf]
    return [tuple(median(step[name] for step in group) for name in _AXES) for group in kept]


def _label_ends(panel: Axes, ends: list[tuple[tuple[float, float], str]], apart: float = 0.058) -> None:
    """Names right of all lines, each at the height of its own end or as far above as it must. The limits must stand by then."""
    to_axes = panel.transData + panel.transAxes.inverted()
    lowest = 0.02
    column = max((to_axes.transform(end)[0] for end, _ in ends), default=0) + 0.03
    for end, key in sorted(ends, key=lambda end: end[0][1]):
        up = max(to_axes.transform(end)[1], lowest)
        lowest = up + apart
        label = CONTENDERS[key].label
        panel.text(column, up, label, transform=panel.transAxes, color=_colour(key), va="center", fontsize=9)


def _round_trip(results: Results, section: str):
    """The distribution: percentiles on a scale that gives each nine the same room."""
    panels_wanted = [
        (load, title)
        for load, title in (("rtt-idle", "idle"), ("rtt-loaded", "beside one TCP stream"))
        if any(results.figures(section, key, load) for key in LINES)
    ]
    if not panels_wanted:
        return None
    figure, panels = plt.subplots(
        1, len(panels_wanted), squeeze=False, sharey=True, figsize=(1.2 + 4.4 * len(panels_wanted), 4.2)
    )
    ticks = [50, 90, 99, 99.9]
    labels = []
    for panel, (load, title) in zip(panels[0], panels_wanted):
        panel.set_yscale("log")
        ends = []
        for key in LINES:
            figures = [found for found in results.figures(section, key, load).values() if found["samples"]]
            if not figures:
                continue
            rounds = [dict(map(tuple, found["percentiles"])) for found in figures]
            # No percentile that has less than one sample beyond it.
            fewest = min(found["samples"] for found in figures)
            percents = [percent for percent in PERCENTILES if 0 < percent < 99.95 and fewest * (100 - percent) >= 100]
            line = [(_nines(percent), median(found[percent] for found in rounds)) for percent in percents]
            panel.plot(*zip(*line), color=_colour(key), linewidth=2.2 if key == "tund" else 1.5)
            ends.append((line[-1], key))
        panel.xaxis.set_major_locator(FixedLocator([_nines(tick) for tick in ticks]))
        panel.xaxis.set_major_formatter(FixedFormatter([f"{tick} %" for tick in ticks]))
        panel.set_xlim(0, _nines(99.9) * 1.42)
        panel.grid(True)
        panel.set_title(title)
        panel.set_xlabel("of round trips take no longer")
        labels.append((panel, ends))
    lowest, highest = panels[0][0].get_ylim()
    marks = [mark * 10**power for power in range(7) for mark in (1, 2, 5)]
    marks = [mark for mark in marks if lowest <= mark <= highest]
    scale = panels[0][0].yaxis
    scale.set_major_locator(FixedLocator(marks))
    scale.set_major_formatter(FixedFormatter([f"{mark} µs" if mark < 1000 else f"{mark / 1000:g} ms" for mark in marks]))
    scale.set_minor_locator(NullLocator())
    for panel, ends in labels:
        _label_ends(panel, ends)
    _heading(figure, f"Round trip of 64 bytes, {SECTIONS[section]}")
    return figure


def _nines(percent: float) -> float:
    return -log10(1 - percent / 100)


def _cpu(results: Results, section: str):
    """Stacked bars: who spends the CPU seconds of a GB."""
    user, system, _, whole = CPU
    rows = _with(results, section, whole)
    if len(rows) < 2:
        return None
    figure, panel = plt.subplots(figsize=(7.4, 1.3 + 0.3 * len(rows)))
    furthest = 0.0
    for row, key in enumerate(rows):
        total = median(results.series(section, key, whole).values())
        left = 0.0
        for metric, alpha in ((user, 1), (system, 0.65)):
            values = list(results.series(section, key, metric).values())
            if values:
                panel.barh(row, median(values), left=left, height=0.62, color=_colour(key), alpha=alpha, linewidth=0)
                left += median(values)
        panel.barh(row, max(0.0, total - left), left=left, height=0.62, color=_colour(key), alpha=0.3, linewidth=0)
        _beside(panel, max(left, total), row, number(total))
        furthest = max(furthest, left, total)
    panel.set_xlim(0, 1.1 * furthest)
    panel.set_yticks(range(len(rows)), [CONTENDERS[key].label for key in rows])
    panel.invert_yaxis()
    panel.set_xticks([])
    for side in ("bottom", "left"):
        panel.spines[side].set_visible(False)
    panel.set_title("strong: the program, user; middle: the program, kernel; faint: all else", fontsize=9, fontweight="normal")
    _heading(figure, f"CPU seconds per GB, TCP 1 stream, {SECTIONS[section]}")
    return figure


if __name__ == "__main__":
    import argparse
    import json

    parser = argparse.ArgumentParser(description="Draws a result again.")
    default = Path(__file__).resolve().parent / "results/throughput.json"
    parser.add_argument("file", nargs="?", type=Path, default=default)
    parser.add_argument("--base", choices=CONTENDERS, default="veth", help="what ratios are to")
    parser.add_argument("--kind", choices=("svg", "png"), default="svg")
    chosen = parser.parse_args()
    for path in draw(Results(json.loads(chosen.file.read_text()), chosen.base), chosen.file.parent, chosen.kind):
        print(path)
