"""``shrink``: make the tape of a failure short, so that a human being can follow it.

Theory of operation
-------------------
Every candidate is played; it is taken if it fails in the same way (:func:`~networkio_testing.swarm.signature`), and is
cut off behind the move that failed.  Candidates come from coarse to fine: without a whole kind of move, without a
stretch of moves (halves, quarters, ... single ones: delta debugging), without a host, with settings as usual, and with
simpler arguments (each domain in :data:`~networkio_testing.swarm.MOVES` lists its simplest value first).  That is
repeated until nothing helps any more, or the number of ``tries`` is spent.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .game import NAMES
from .swarm import MOVES, domain_of, play, signature
from .tape import Tape, TapeError

__all__ = ["Shrinker", "add", "shrink"]


class Shrinker:
    """The shortest tape so far, and how many were tried."""

    def __init__(self, tape: Tape, tries: int = 5000) -> None:
        self.tries = tries
        self.best = tape
        self.failure = tape.failure
        if not self._fails(replace(tape, failure=None)):
            raise TapeError("this tape does not fail" if tape.words is None else f"this is no more: {tape.words}")

    def shrink(self) -> Tape:
        """Until nothing helps any more."""
        before = None
        while before != self._size() and self.tries > 0:
            before = self._size()
            self._drop_kinds()
            self._drop_moves()
            self._drop_hosts()
            self._simplify_world()
            self._simplify_arguments()
        return self.best

    def _size(self) -> tuple[int, str]:
        return (len(self.best.moves), str(self.best))

    def _fails(self, tape: Tape) -> bool:
        """Does it still fail like that?  Then it is the best so far."""
        if self.tries <= 0:
            return False
        self.tries -= 1
        try:
            play(tape)
        except Exception as error:
            if self.failure is None:
                self.failure = signature(error)
            if signature(error) == self.failure:
                self.best = tape
                return True
        return False

    def _try(self, moves: list[tuple[Any, ...]], world: Mapping[str, Any] | None = None) -> bool:
        return self._fails(Tape(self.best.seed, self.best.world if world is None else world, moves))

    def _drop_kinds(self) -> None:
        """Faults first: what is left is then mostly what applications do."""
        kinds = sorted({move[0] for move in self.best.moves}, key=lambda name: (not MOVES[name].fault, name))
        for kind in kinds:
            self._try([move for move in self.best.moves if move[0] != kind])

    def _drop_moves(self) -> None:
        """From the end, because what comes last is often the cause, and what is far before it is often not."""
        size = max(1, len(self.best.moves) // 2)
        while size and self.tries > 0:
            start = len(self.best.moves)
            while start > 0:
                start = min(start, len(self.best.moves))
                first = max(0, start - size)
                self._try(self.best.moves[:first] + self.best.moves[start:])
                start = first
            size //= 2

    def _drop_hosts(self) -> None:
        """The last host, with everything that names it."""
        while len(self.best.world["configs"]) > 2:
            world = dict(self.best.world)
            gone = NAMES[len(world["configs"]) - 1]
            world["configs"] = world["configs"][:-1]
            for name in ("pairs", "dialers"):
                world[name] = [pair for pair in world[name] if gone not in pair]
            named = [move for move in self.best.moves if _names(move, gone)]
            if not self._try([move for move in self.best.moves if move not in named], world):
                break

    def _simplify_world(self) -> None:
        """Settings as usual, one by one."""
        for name in ("capacity", "write_size", "named", "vigil", "inboxes", "durable", "clocks", "stranger"):
            if name in self.best.world:
                self._try(list(self.best.moves), {key: v for key, v in self.best.world.items() if key != name})
        for index, settings in enumerate(self.best.world["configs"]):
            for name in settings:
                configs = [dict(some) for some in self.best.world["configs"]]
                del configs[index][name]
                self._try(list(self.best.moves), {**self.best.world, "configs": configs})  # if it goes with the others

    def _simplify_arguments(self) -> None:
        """The first value of its domain that does, for each argument of each move."""
        for place in range(len(self.best.moves) - 1, -1, -1):
            if place >= len(self.best.moves):
                continue
            domains = MOVES[self.best.moves[place][0]].arguments
            for index, domain in enumerate(domains, 1):
                for value in list(domain_of(domain, self.best.world))[:12]:
                    move = self.best.moves[place]
                    if value == move[index]:
                        break
                    moves = list(self.best.moves)
                    moves[place] = (*move[:index], value, *move[index + 1 :])
                    if self._try(moves):
                        break
                if place >= len(self.best.moves):
                    break


def _names(move: tuple[Any, ...], host: str) -> bool:
    """Has this move to do with that host?"""
    domains = MOVES[move[0]].arguments
    return any(host in value for domain, value in zip(domains, move[1:], strict=True) if domain in ("pair", "host"))


def shrink(tape: Tape, tries: int = 5000) -> Tape:
    """The shortest tape that was found to fail like this one.  Raises TapeError if it does not fail."""
    return Shrinker(tape, tries).shrink()


def add(subparsers: Any) -> None:
    """The subcommand ``shrink``."""
    parser = subparsers.add_parser("shrink", help="make the tape of a failure short")
    parser.add_argument("tape", type=Path)
    parser.add_argument("--output", type=Path, help="where the short tape goes (TAPE.short)")
    parser.add_argument("--tries", type=int, default=5000, help="play at most so many candidates")
    parser.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    """Shrink it, write the short one, say how to play it."""
    try:
        tape = Tape.load(arguments.tape)
        before = len(tape.moves)
        short = shrink(tape, arguments.tries)
    except (TapeError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    output = arguments.output or arguments.tape.with_name(arguments.tape.name + ".short")
    short.save(output)
    print(f"{before} moves, now {len(short.moves)}: {short.words}")
    print(f"play it again: python -m networkio_testing replay {output} --trace")
    return 0
