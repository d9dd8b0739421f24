"""``python -m networkio_testing conformance HOST:PORT``: hold an implementation at a port to the scripts."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .codec import Malformed
from .play import Failure, Player
from .report import Result, line, summary, write_junit
from .script import Case, load
from .values import ScriptError
from .wire import SocketStage, meet

__all__ = ["add", "play_all", "play_one"]


def add(subparsers: Any) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "conformance", help="hold an implementation at a port to the conformance scripts",
        description="Plays every script that is marked `wire` against an implementation of the protocol that serves "
        "the acknowledge-and-echo application at HOST:PORT.",
    )  # fmt: skip
    parser.add_argument("address", nargs="?", metavar="HOST:PORT", help="where it listens; IPv6 as [::1]:PORT")
    parser.add_argument("--junit", metavar="FILE", type=Path, help="write a report as JUnit's XML")
    parser.add_argument("--list", action="store_true", help="list the cases with what they cover, and stop")
    parser.add_argument("--case", metavar="NAME", action="append", help="only this case; a * at the end means all such")
    parser.add_argument("--jobs", metavar="N", type=int, default=16, help="cases at a time (default: 16)")
    parser.add_argument(
        "--patience", metavar="SECONDS", type=float, default=5.0,
        help="how long what is expected may take (default: 5); only a failure takes so long",
    )  # fmt: skip
    parser.set_defaults(main=run)


def run(options: argparse.Namespace) -> int:
    """0: all passed; 1: not all did; 2: nothing could be tried."""
    cases = [case for case in load() if _wanted(case, options.case)]
    if not cases:
        return _complain(f"there is no case {' '.join(options.case)}; --list tells which there are")
    if options.list:
        for case in cases:
            where = "wire" if case.wire else "core"
            print(f"{where}  {case.role:8}  {case.name}  [{' '.join(case.covers)}]\n      {case.title}")
        return 0
    try:
        address = _address(options.address)
        node_id = meet(address, options.patience)
    except (ValueError, Failure, Malformed) as error:
        return _complain(str(error))
    began = time.monotonic()
    wire = [case for case in cases if case.wire]
    results = []
    for result in play_all(address, node_id, wire, options.jobs, options.patience):
        print(line(result), flush=True)
        results.append(result)
    seconds = time.monotonic() - began
    print(summary(results, len(cases) - len(wire), seconds))
    if options.junit is not None:
        write_junit(options.junit, results, seconds)
    return int(any(result.failure is not None for result in results) or not results)


def play_all(
    address: tuple[str, int], node_id: str, cases: Sequence[Case], jobs: int, patience: float
) -> Iterator[Result]:
    """Play the cases side by side; their results in the order of the cases."""
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        yield from pool.map(lambda case: play_one(address, node_id, case, patience), cases)


def play_one(address: tuple[str, int], node_id: str, case: Case, patience: float) -> Result:
    """Play one case."""
    began = time.monotonic()
    stage = SocketStage(address, node_id, patience)
    failure = None
    try:
        Player(case, stage).run()
    except (Failure, ScriptError) as error:
        failure = str(error)
    finally:
        stage.close()
    return Result(case, time.monotonic() - began, failure)


def _wanted(case: Case, names: Sequence[str] | None) -> bool:
    return not names or any(
        case.name.startswith(name[:-1]) if name.endswith("*") else case.name == name for name in names
    )


def _address(text: str | None) -> tuple[str, int]:
    host, _, port = (text or "").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text or 'nothing'} is no HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _complain(text: str) -> int:
    print(text, file=sys.stderr)
    return 2
