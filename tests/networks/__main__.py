"""``python -m tests.networks``: every scenario in its full form, and a summary in figures.  Takes root and minutes.

The slow link runs beside the others.  What this machine cannot do is said and left out; what breaks a promise ends in
a traceback, and in exit status 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic

from . import scenarios
from .conversation import converse
from .network import Missing, why_not
from .scenarios import QUICK, Figures


def half_open(direction: str, runs: int) -> Figures:
    """So many runs for each adapter in each role, ten at a time."""
    with converse(nodes=10, **QUICK) as world:
        return scenarios.half_open(world, direction, rounds=-(-runs // 10))  # type: ignore[arg-type]


def on(scenario: Callable[..., Figures], **options: int) -> Callable[[], Figures]:
    """A scenario in a world of its own."""

    def run() -> Figures:
        with converse(nodes=3, **QUICK) as world:
            return scenario(world, **options)

    return run


def outcome(name: str, scenario: Callable[[], Figures]) -> bool:
    """Run it and print its figures; False if it broke a promise."""
    began = monotonic()
    try:
        figures: object = scenario()
    except Missing as missing:
        figures = f"left out: {missing}"
    except Exception:
        traceback.print_exc()
        figures = "FAILED"
    print(f"{name:18} {monotonic() - began:4.0f} s  {json.dumps(figures)}", flush=True)
    return figures != "FAILED"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.networks", description=__doc__)
    parser.add_argument("--runs", type=int, default=50, help="of each way to be half-open (default 50)")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the slow link (default 10)")
    arguments = parser.parse_args()
    if reason := why_not():
        print(f"nothing was run: {reason}")
        return 2
    seconds = 60 * arguments.minutes
    scenes: list[tuple[str, Callable[[], Figures]]] = [
        *((f"half-open, {way}", lambda way=way: half_open(way, arguments.runs)) for way in ("both", "there", "back")),
        ("link down", on(scenarios.link_down, rounds=10)),
        ("reset", on(scenarios.reset, rounds=20)),
        ("killed sockets", on(scenarios.killed_sockets, kills=200)),
        ("paused", on(scenarios.paused, rounds=10)),
        ("narrow", lambda: scenarios.narrow(messages=20, size=1_000_000)),
        ("slowed", lambda: scenarios.slowed(60.0, dead_after=20.0, ping_after=4.0, write_stall=20.0)),
        ("far away", lambda: scenarios.slow(60.0, loss=0, discipline=scenarios.FAR_AWAY)),
    ]
    with ThreadPoolExecutor() as pool:
        slow: Future[bool] = pool.submit(outcome, "slow and lossy", lambda: scenarios.slow(seconds))
        held = [outcome(name, scenario) for name, scenario in scenes]
        return 0 if all([*held, slow.result()]) else 1


if __name__ == "__main__":
    sys.exit(main())
