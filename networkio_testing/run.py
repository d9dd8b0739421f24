"""``run``: play a swarm of games, on one core or several, and say what happened in one JSON object.

Theory of operation
-------------------
Seeds are played in order, in batches; workers play batches ahead, but their results are added up in the order of the
seeds.  So the summary, its hash of all traces included, does not depend on how many workers there were, and a run may
be interrupted: ``--state`` keeps the summary so far and the next seed in a file, and the same command goes on from
there.  Nothing grows with the number of games but the list of failures, which ends a run when it is long enough.

Cores and worlds are full of cycles.  The collector of cycles is off while a game is played and runs after each, over
nothing but that game: everything older is frozen.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from .swarm import MOVES, draw, play
from .tape import Tape

__all__ = ["Summary", "add", "batch", "run"]

#: seeds that a worker plays at a time
_BATCH = 8


@dataclass(slots=True)
class Summary:
    """What happened in some games; they can be added up."""

    seeds: int = 0
    #: calls of the cores by kind (:class:`~networkio_testing.world.Steps`)
    steps: Counter[str] = field(default_factory=Counter)
    #: what drivers only ask the cores (effects, notices, the next timer); these are no steps
    asked: int = 0
    #: moves by kind
    moves: Counter[str] = field(default_factory=Counter)
    #: what the judges saw: messages, outcomes, verdicts, closed and lost connections
    seen: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    crashes: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    #: seconds of processor time
    seconds: float = 0.0
    #: of all traces, in the order of the seeds
    trace: str = ""

    @property
    def events(self) -> int:
        """Steps of all kinds."""
        return self.steps.total()

    def add(self, other: Summary) -> None:
        """Together with what came after it."""
        self.seeds += other.seeds
        self.steps += other.steps
        self.asked += other.asked
        self.moves += other.moves
        self.seen += other.seen
        self.connections += other.connections
        self.crashes += other.crashes
        self.failures += other.failures
        self.seconds += other.seconds
        self.trace = hashlib.blake2b((self.trace + other.trace).encode(), digest_size=8).hexdigest()

    def report(self) -> dict[str, Any]:
        """For people and for JSON."""
        events, seconds = self.events, self.seconds
        million = events / 1_000_000 or 1.0
        faults = {name: count for name, count in sorted(self.moves.items()) if is_fault(name)}
        return {
            "events": events,
            "seeds": self.seeds,
            "violations": len(self.failures),
            "failures": self.failures,
            "faults": faults,
            "moves": dict(sorted(self.moves.items())),
            "steps": dict(self.steps.most_common()),
            "seen": dict(sorted(self.seen.items())),
            "per_million_events": {
                "messages": round(self.seen["accepted"] / million),
                "handed over": round(sum(self.seen[f"handed over{how}"] for how in ("", " again")) / million),
                "connections": round(self.connections / million),
                "live": round(self.seen["live"] / million),
                "crashes": round(self.crashes / million),
                "faults": round(sum(faults.values()) / million),
            },
            "seconds": round(seconds, 3),
            "events_per_second": round(events / seconds) if seconds else 0,
            "core_calls": events + self.asked,
            "core_calls_per_second": round((events + self.asked) / seconds) if seconds else 0,
            "trace": self.trace,
        }


def is_fault(name: str) -> bool:
    """Is this kind of move something that networks and machines do to people?"""
    move = MOVES[name]
    return move.fault and not move.application


def one(tape: Tape) -> Summary:
    """Play one game; a failure is in the summary, with its tape."""
    summary = Summary(seeds=1, moves=Counter(move[0] for move in tape.moves))
    try:
        game = play(tape)
    except Exception:
        summary.failures.append(asdict(tape))
    else:
        world = game.world
        summary.steps, summary.asked = Counter(world.steps.counts()), world.steps.asked
        summary.seen = game.judge.tally
        summary.connections = world.connections_made
        summary.crashes = sum(host.lives - 1 for host in world.hosts.values())
        summary.trace = game.recorder.trace
    return summary


def batch(seeds: range, without: tuple[str, ...] = (), failures: int = 1) -> Summary:
    """Play the games of these seeds, until so many have failed."""
    total = Summary()
    gc.collect()
    gc.freeze()
    gc.disable()
    began = time.process_time()
    try:
        for seed in seeds:
            total.add(one(draw(seed, without=without)))
            gc.collect()
            if len(total.failures) >= failures:
                break
    finally:
        total.seconds = time.process_time() - began
        gc.enable()
        gc.unfreeze()
    return total


def _batches(
    seeds: range, jobs: int, without: tuple[str, ...], failures: int
) -> Iterator[tuple[range, Summary]]:
    """All batches in their order, played by so many workers."""
    parts = (seeds[place : place + _BATCH] for place in range(0, len(seeds), _BATCH))
    if jobs == 1:
        for part in parts:
            yield part, batch(part, without, failures)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as workers:
        ahead: deque[tuple[range, Future[Summary]]] = deque()
        try:
            while True:
                for part in islice(parts, 3 * jobs - len(ahead)):
                    ahead.append((part, workers.submit(batch, part, without, failures)))
                if not ahead:
                    return
                part, future = ahead.popleft()
                yield part, future.result()
        finally:
            for _, future in ahead:
                future.cancel()


def run(
    seeds: range,
    *,
    events: int | None = None,
    jobs: int = 1,
    least: int = 0,
    failures: int = 1,
    without: tuple[str, ...] = (),
    state: Path | None = None,
    progress: float | None = None,
) -> Summary:
    """Play seeds until there were so many ``events`` in at least so many (``least``) games, or no seed is left."""
    total, told = Summary(), time.monotonic()
    if state is not None and state.exists():
        following, total = _load(state)
        seeds = range(max(seeds.start, following), seeds.stop)
    while seeds and not _enough(total, events, least, failures):
        for part, result in _batches(seeds, jobs, without, failures):
            total.add(result)
            seeds = range(part.stop, seeds.stop)
            if state is not None:
                _save(state, seeds.start, total)
            if progress is not None and time.monotonic() - told > progress:
                told = time.monotonic()
                print(f"{total.events} events, {total.seeds} seeds, {len(total.failures)} failures", file=sys.stderr)
            if _enough(total, events, least, failures):
                break
    return total


def _enough(total: Summary, events: int | None, least: int, failures: int) -> bool:
    done = events is not None and total.events >= events and total.seeds >= least
    return done or len(total.failures) >= failures


def _save(path: Path, following: int, total: Summary) -> None:
    part = path.with_name(path.name + ".part")
    summary = {name: getattr(total, name) for name in Summary.__slots__}  # asdict does not know counters
    part.write_text(json.dumps({"next": following, "summary": summary}))
    part.replace(path)


def _load(path: Path) -> tuple[int, Summary]:
    kept = json.loads(path.read_text())
    summary = Summary(**kept["summary"])
    for name in ("steps", "moves", "seen"):
        setattr(summary, name, Counter(getattr(summary, name)))
    return kept["next"], summary


# -- the command line -------------------------------------------------------------------------------------------------


def add(subparsers: Any) -> None:
    """The subcommand ``run``."""
    parser = subparsers.add_parser("run", help="play games at random and look for broken promises")
    parser.add_argument("--events", type=_number, help="stop after so many events (calls of a core)")
    parser.add_argument("--seeds", type=_seeds, metavar="A:B", help="these seeds (A: has no end)")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--least", type=_number, default=0, help="and not before so many seeds")
    parser.add_argument("--jobs", type=int, default=1, help="so many processes")
    parser.add_argument("--failures", type=int, default=1, help="stop at so many failures")
    parser.add_argument("--without", action="append", default=[], choices=sorted(MOVES), help="leave this move out")
    parser.add_argument("--state", type=Path, help="keep what is done in this file, and go on from there")
    parser.add_argument("--tapes", type=Path, default=Path(), help="where tapes of failures go")
    parser.add_argument("--json", action="store_true", help="print everything, as one JSON object")
    parser.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    """Play, write the tapes of failures, print."""
    seeds = arguments.seeds
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
    if seeds is None:
        seeds = range(sys.maxsize) if arguments.events else range(100)
    began = time.perf_counter()
    total = run(
        seeds,
        events=arguments.events,
        jobs=arguments.jobs,
        least=arguments.least,
        failures=arguments.failures,
        without=tuple(arguments.without),
        state=arguments.state,
        progress=30.0,
    )
    report = total.report() | {"jobs": arguments.jobs, "elapsed": round(time.perf_counter() - began, 3)}
    for failure in report["failures"]:
        tape = Tape(**failure)
        path = arguments.tapes / f"seed-{tape.seed}.tape"
        tape.save(path)
        failure |= {"tape": str(path), "moves": len(failure["moves"])}
        del failure["world"]
        print(f"seed {tape.seed}, after {len(tape.moves)} moves: {tape.words}", file=sys.stderr)
        print(f"play it again: python -m networkio_testing replay {path} --trace", file=sys.stderr)
    if arguments.json:
        print(json.dumps(report))
    else:
        _print(report)
    return 1 if report["violations"] else 0


def _print(report: dict[str, Any]) -> None:
    for name in ("events", "seeds", "violations", "seconds", "events_per_second", "core_calls_per_second", "trace"):
        print(f"{name}: {report[name]}")
    print("per million events:", ", ".join(f"{count} {name}" for name, count in report["per_million_events"].items()))
    print("faults:", ", ".join(f"{name} {count}" for name, count in report["faults"].items()))


def _number(text: str) -> int:
    """``5000000``, ``5_000_000`` or ``5e6``."""
    return int(float(text)) if "e" in text else int(text)


def _seeds(text: str) -> range:
    first, colon, last = text.partition(":")
    return range(int(first or 0), int(last) if last else sys.maxsize if colon else int(first) + 1)
