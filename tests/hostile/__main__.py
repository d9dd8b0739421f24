"""``python -m tests.hostile``: every attack in full, on both adapters, in figures, and what these may not exceed.

What exceeds it is told, and makes the exit status 1.  It takes some eight minutes; on a machine that does other things
at the same time the times mean little.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from tests.hostile.attacks import Figures, besieged, flood, held, silent
from tests.hostile.payloads import bombs

#: so many wait for the end of a handshake at a time, and their time is long
PATIENT: dict[str, Any] = {"max_pending": 10_000, "max_pending_per_source": 10_000, "handshake_timeout": 60.0}

Check = tuple[str, float, float]


def certificates(directory: Path) -> str:
    """For all who take part."""
    from tests.tls.authority import Authority

    authority = Authority(directory)
    for name in ("server", "client", "new-0", "new-1", "new-2", "new-3"):
        authority.sign(name, f"networkio:{name}")
    return str(directory)


def cost(adapter: str, place: str, *, speaking: bool) -> tuple[Figures, list[Check]]:
    with besieged(adapter, place, **PATIENT) as siege:
        figures = silent(siege, 2000, speaking=speaking)
    return figures, [("bytes_each", figures["bytes_each"], 8192), ("us_each", figures["microseconds_each"], 300)]


def hold(adapter: str, place: str) -> tuple[Figures, list[Check]]:
    with besieged(adapter, place) as siege:
        figures = held(siege, 5000)
    calm, stormy = figures["calm"], figures["stormy"]
    return figures, [
        ("let_in p99, ms", stormy["let_in"]["p99"], 1000),
        ("answered p99, ms", stormy["answered"]["p99"], 2 * calm["answered"]["p99"]),
    ]


def pour(adapter: str, place: str) -> tuple[Figures, list[Check]]:
    with besieged(adapter, place) as siege:
        figures = flood(siege, 2000, 30)
    return figures, [
        ("peak_mib", figures["peak_mib"], 64), ("left_mib", figures["left_mib"], 16),
        ("left_descriptors", figures["left_descriptors"], 0),
    ]  # fmt: skip


def explode() -> tuple[Figures, list[Check]]:
    figures = bombs()
    checks = [(f"{name}, ms", each["milliseconds"], 50.0) for name, each in figures.items()]
    return figures, checks + [(f"{name}, times its size", each["times"], 16.0) for name, each in figures.items()]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--adapter", choices=("asyncio", "threads"), help="only this one (default: both)")
    arguments = parser.parse_args()
    adapters = [arguments.adapter] if arguments.adapter else ["asyncio", "threads"]
    exceeded = False
    with TemporaryDirectory(prefix="networkio-siege-") as directory:
        place = certificates(Path(directory))
        plan: dict[str, Callable[[], tuple[Figures, list[Check]]]] = {"payloads": explode}
        for adapter in adapters:
            plan |= {
                f"{adapter}: say nothing": partial(cost, adapter, "", speaking=False),
                f"{adapter}: say HELLO": partial(cost, adapter, "", speaking=True),
                f"{adapter}: say nothing, TLS": partial(cost, adapter, place, speaking=False),
                f"{adapter}: hold handshakes": partial(hold, adapter, ""),
                f"{adapter}: hold handshakes, TLS": partial(hold, adapter, place),
                f"{adapter}: flood": partial(pour, adapter, ""),
            }
        for name, attack in plan.items():
            begin = monotonic()
            figures, checks = attack()
            print(f"{name:32} {monotonic() - begin:4.0f} s  {json.dumps(figures)}", flush=True)
            for what, value, most in checks:
                if value > most:
                    exceeded = True
                    print(f"    EXCEEDED: {what} is {value}, at most {most:g}", flush=True)
    return int(exceeded)


if __name__ == "__main__":
    sys.exit(main())
