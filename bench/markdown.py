"""The tables of a result as Markdown: markdown.py [FILE] [--base CONTENDER]. FILE is bench/results/throughput.json."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import report
from contenders import CONTENDERS


def main() -> None:
    parser = argparse.ArgumentParser(description="Prints the tables of a result as Markdown.")
    default = Path(__file__).resolve().parent / "results/throughput.json"
    parser.add_argument("file", nargs="?", type=Path, default=default)
    parser.add_argument("--base", choices=CONTENDERS, default="veth", help="what ratios are to")
    arguments = parser.parse_args()
    print(report.markdown(report.Results(json.loads(arguments.file.read_text()), arguments.base)), end="")


if __name__ == "__main__":
    main()
