"""``python -m tests.chaos``: processes with a journal are killed thousands of times, and everything is counted.

Senders, receivers and both together, receivers with a durable inbox, and the two commands of a file transfer,
``--kills`` times each; then senders and receivers at each of their system calls, if strace is there.  The last line has
the totals.  The exit status is 0 if nothing was lost, doubled or reordered, every journal opened, and every part came
to its end.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chaos import crash, inboxes, kills, syscalls
from tests.chaos.tally import Tally

__all__ = ["main", "run"]

Part = tuple[str, Callable[[], Tally]]


def parts(given: argparse.Namespace) -> Iterator[Part]:
    """What there is to do, each with its name."""

    forked = partial(crash.play, kills=given.kills, seed=given.seed)
    for who in crash.PROCESSES:
        yield who, partial(_beside, forked, who)
    killed = partial(inboxes.play, kills=given.kills, seed=given.seed)
    for adapter in inboxes.ADAPTERS:
        yield f"durable inbox on {adapter}", partial(_beside, killed, adapter)
        yield f"durable inbox on {adapter}, alone", partial(_beside, inboxes.play_left, adapter)
    yield "file transfers", partial(kills.play, given.kills, given.seed, lines=given.lines)
    if not syscalls.why_not():
        for role in ("send", "receive"):
            for kind in syscalls.CALLS:
                calls = partial(syscalls.play, role, kind, every=given.every, most=given.most)
                yield f"{role}, at calls of the {kind}", calls


def _beside(play: Callable[[Path, str], Tally], what: str) -> Tally:
    """In a directory of its own."""
    with TemporaryDirectory(prefix="networkio-crash-") as directory:
        return play(Path(directory), what)


def run(plan: Sequence[Part]) -> int:
    """Do it all, and tell; returns the exit status."""
    total, broken, start = Tally(), [], time.monotonic()
    for name, play in plan:
        began = time.monotonic()
        try:
            tally = play()
        except AssertionError as error:
            broken.append(name)
            print(f"{name}: broke off: {error}", flush=True)
            continue
        total += tally
        print(f"{name}: {tally}, {time.monotonic() - began:.0f} s", flush=True)
    off = f"; what broke off, and is not counted: {', '.join(broken)}" if broken else ""
    print(f"total: {total}, {time.monotonic() - start:.0f} s{off}", flush=True)
    return int(bool(broken) or not total.good or not total.kills)


def main(words: Sequence[str]) -> int:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000, help="of each part (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lines", type=int, default=200_000, help="of each transfer (default: %(default)s)")
    parser.add_argument("--every", type=int, default=1, help="every so many system calls (default: %(default)s)")
    parser.add_argument("--most", type=int, default=10_000, help="kills at each kind of system calls, at most")
    given = parser.parse_args(words)
    if syscalls.why_not():
        print(f"no kills at system calls: {syscalls.why_not()}", flush=True)
    return run(list(parts(given)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
