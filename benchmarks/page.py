"""The page of the documentation that shows what was measured.

The page describes a measurement by the docstring of its file.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from measuring import Bar, Chart, Claim, Finding, Spread, Table, markdown

HEAD = """\
<!-- Made by benchmarks/run.py from benchmarks/results.json: change those. -->

# Measurements

What token handling costs, and what happens to requests when a token expires: tokenadapter compared
with other libraries, a decorator written by hand, and plain requests. The page also says where
another library is better.

One command makes all of it, on a machine that should be idle otherwise:

```sh
tox -e bench
```

The contenders take turns within each measurement, so that a machine that slows down does so for
all. Figures are medians; *middle half* is the range of the middle half of the values. A ratio is
the median of the ratios of each round. Each library is used as its documentation says, in a program
that keeps its token in a file: see `benchmarks/contenders/`.

"""


def text(results: dict[str, Any]) -> str:
    parts = [HEAD, _machine(results["machine"])]
    parts += [
        _section(import_module(name).__doc__ or "", one["made"], _finding(one["finding"]))
        for name, one in results["measured"].items()
    ]
    return "".join(parts)


def charts(results: dict[str, Any]) -> list[Chart]:
    findings = (_finding(one["finding"]) for one in results["measured"].values())
    return [chart for finding in findings for chart in finding.charts]


def as_json(value: Any) -> Any:
    """A finding as dictionaries, lists and what else JSON knows."""
    if isinstance(value, Spread):
        return [round(number, 6) for number in value]
    if hasattr(value, "_asdict"):
        return {name: as_json(part) for name, part in value._asdict().items()}
    return [as_json(part) for part in value] if isinstance(value, list | tuple) else value


def _finding(stored: dict[str, Any]) -> Finding:
    """What :func:`as_json` was given."""
    return Finding(
        [Table(**table) for table in stored["tables"]],
        [
            Chart(**chart | {"bars": [_bar(bar) for bar in chart["bars"]]})
            for chart in stored["charts"]
        ],
        [Claim(**claim) for claim in stored["claims"]],
        stored["remarks"],
    )


def _bar(stored: dict[str, Any]) -> Bar:
    return Bar(stored["name"], Spread(*stored["spread"]), stored["note"])


def _machine(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return f"Measured on {machine['processor']}, {machine['system']}, with {versions}.\n"


def _section(about: str, made: dict[str, Any], finding: Finding) -> str:
    title, _, said = about.strip().partition("\n")
    parts = [f"## {title}", said.strip()]
    parts += [f"![{chart.title}](_static/{chart.file}.svg)" for chart in finding.charts]
    parts += [markdown(table).rstrip("\n") for table in finding.tables]
    notes = [*finding.remarks, *(_claim(claim) for claim in finding.claims)]
    parts.append("\n".join(f"* {note}" for note in notes))
    parts.append(f"Measured on {made['date']}. The machine's load before was {made['load']}.")
    return "\n" + "\n\n".join(filter(None, parts)) + "\n"


def _claim(claim: Claim) -> str:
    return f"{'✓' if claim.holds else '✗ **not kept**:'} {claim.text}"
