"""The one command: measures all, and writes the page, the charts and the figures behind them.

Without a name it measures all, which takes an hour, on a machine that should be idle::

    python benchmarks/run.py
    python benchmarks/run.py thread_herd process_herd
    python benchmarks/run.py --page

The second measures only these, and leaves the other figures as they are; the third measures
nothing, and writes the page anew.  With ``--check`` it says whether that is necessary.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import ssl
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import page
import plot
from contenders import NAMES, installed
from measuring import Finding, text

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results.json"
PAGE = ROOT / "docs" / "measurements.md"
PICTURES = ROOT / "docs" / "_static"
MEASUREMENTS = [
    "hot_path",
    "async_path",
    "cold_start",
    "command",
    "thread_herd",
    "async_herd",
    "cron_herd",
    "process_herd",
    "revocation",
    "steady_state",
    "upload",
    "store_latency",
    "scale",
]


def measure(name: str, load: float) -> dict[str, Any]:
    """A finding, and when it was made, for JSON."""
    finding: Finding = importlib.import_module(name).measure(False)
    print(f"\n{text(finding)}", flush=True)
    made = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "load": load}
    return {"made": made, "finding": page.as_json(finding)}


def machine() -> dict[str, Any]:
    """On what, and with which versions."""
    distributions = {NAMES[name].distribution for name in installed()}
    distributions |= {"aiohttp", "filelock", "httpcore", "httpx", "httpx-auth", "mcp", "urllib3"}
    model = "unknown processor"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(": ")[1] for line in lines if "model name" in line), model)
    return {
        "processor": f"{os.cpu_count()} × {model}",
        "system": f"{platform.system()} {platform.release()}",
        "versions": {
            "Python": platform.python_version(),
            "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
            **{name: version(name) for name in sorted(distributions, key=str.lower)},
        },
    }


def keep(name: str, measured: dict[str, Any]) -> None:
    """Write what was measured at once: an hour's work is not lost by what fails later."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    known = results.get("measured", {}) | {name: measured}
    results = {
        "machine": machine(),
        "measured": {name: known[name] for name in MEASUREMENTS if name in known},
    }
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")


def shown(results: dict[str, Any]) -> dict[Path, str]:
    """The files that show it."""
    charts = page.charts(results)
    return {PAGE: page.text(results)} | {
        PICTURES / f"{chart.file}.svg": plot.svg(chart) for chart in charts
    }


def check(files: dict[Path, str]) -> None:
    there = [path for path in {*PICTURES.glob("bench-*.svg"), *files} if path.exists()]
    if {path: path.read_text(encoding="utf-8") for path in there} != files:
        sys.exit("The page is out of date: run python benchmarks/run.py --page, and look at it.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure; else all")
    parser.add_argument("--page", action="store_true", help="measure nothing, write the page")
    parser.add_argument("--check", action="store_true", help="is the page up to date?")
    options = parser.parse_args()
    if not (options.page or options.check):
        load = round(os.getloadavg()[0], 1)
        for name in options.names or MEASUREMENTS:
            print(f"\n{name}", flush=True)
            keep(name, measure(name, load))
    files = shown(json.loads(RESULTS.read_text(encoding="utf-8")))
    if options.check:
        check(files)
        return
    for old in PICTURES.glob("bench-*.svg"):
        old.unlink()
    for path, content in files.items():
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
