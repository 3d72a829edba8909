"""``python -m model`` prints the tables, ``python -m model NAME`` the violation of a variant."""

from __future__ import annotations

import sys

from model.variants import BROKEN, LIMITS, RIGHT


def main() -> None:
    names = sys.argv[1:]
    if names:
        stories = [case.story() for case in (*BROKEN, *LIMITS) if case.name in names]
        print("\n\n".join(stories))  # noqa: T201
        return
    for cases in (RIGHT, BROKEN, LIMITS):
        for case in cases:
            print(f"{case.row()} {case.name}")  # noqa: T201
        print()  # noqa: T201


main()
