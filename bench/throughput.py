"""Throughput, loss, round trip and CPU use of tund between two namespaces, beside other ways over the same wire.

      client 10.0.0.1 ------- veth ------- 10.0.0.2 server
      fd00:0:a00:1::1 ======= tund ======= fd00:0:a00:2::1

All contenders run in every round, one after the other, so that what else the machine does hits all of them; a figure is the
median of the rounds, and worth something only as a ratio to another one of the same run.

    sudo make bench              three rounds, about twelve minutes
    sudo QUICK=1 make bench      one round of less, about one minute
    sudo FULL=1 make bench       three rounds of everything, about 25 minutes
    sudo ROUNDS=7 make bench

It leaves throughput.json and plots in bench/results.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import campaign
import report
from campaign import PLANS, Part
from contenders import CONTENDERS, SECTIONS
from loads import LOADS

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    plan = "quick" if os.environ.get("QUICK") else "full" if os.environ.get("FULL") else "default"
    parser.add_argument("--plan", choices=PLANS, default=plan)
    parser.add_argument("--rounds", type=int, default=os.environ.get("ROUNDS"))
    parser.add_argument("--seconds", type=int, help="of a load; a step of UDP takes no longer than one")
    for name, known in (("contenders", CONTENDERS), ("loads", LOADS), ("sections", SECTIONS)):
        parser.add_argument(f"--{name}", type=_list(known), help=f"only these, by commas, of: {', '.join(known)}")
    parser.add_argument("--base", choices=CONTENDERS, default="veth", help="what ratios are to")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--no-plots", action="store_true")
    return parser.parse_args()


def _list(known: dict):
    def parse(text: str) -> tuple[str, ...]:
        words = tuple(text.split(","))
        if unknown := [word for word in words if word not in known]:
            raise argparse.ArgumentTypeError(f"not known: {', '.join(unknown)}")
        return words

    return parse


def chosen(options: argparse.Namespace) -> campaign.Plan:
    """The plan, narrowed or widened by the options. With both contenders and loads given, all of their pairs run."""
    plan = PLANS[options.plan]
    parts = plan.parts
    if options.contenders and options.loads:
        parts = tuple(Part(section, options.contenders, options.loads) for section in options.sections or SECTIONS)
    else:
        parts = tuple(
            Part(
                part.section,
                tuple(key for key in part.contenders if not options.contenders or key in options.contenders),
                tuple(key for key in part.loads if not options.loads or key in options.loads),
            )
            for part in parts
            if not options.sections or part.section in options.sections
        )
    parts = tuple(part for part in parts if part.contenders and part.loads)
    if not parts:
        sys.exit("nothing to measure: this plan has no such pair of contender and load")
    return replace(plan, parts=parts, rounds=options.rounds or plan.rounds, seconds=options.seconds or plan.seconds)


def main() -> int:
    options = arguments()
    plan = chosen(options)
    # Ctrl-C and a polite kill both unwind the stack, so that the Lab closes.
    for caught in (signal.SIGINT, signal.SIGTERM):
        signal.signal(caught, lambda *_: sys.exit("\ninterrupted"))
    if not options.no_plots:
        import plots  # before the work: what is missing is missed at once
    raw = campaign.measure(plan)
    results = report.Results(raw, options.base)
    raw["targets"] = report.judge(results)
    options.results.mkdir(parents=True, exist_ok=True)
    written = [options.results / "throughput.json"]
    written[0].write_text(json.dumps(raw, indent=1) + "\n")
    if not options.no_plots:
        written += plots.draw(results, options.results)
    if options.results == RESULTS:
        _give_to_owner([RESULTS, *written])
    print(f"\n{report.text(results)}\n\nfigures and plots: {os.path.relpath(options.results)}")
    return 1 if raw.get("failures") else 0


def _give_to_owner(paths: list[Path]) -> None:
    """Under sudo, results belong to whoever the checkout belongs to."""
    owner = HERE.stat()
    for path in paths:
        os.chown(path, owner.st_uid, owner.st_gid)


if __name__ == "__main__":
    sys.exit(main())
