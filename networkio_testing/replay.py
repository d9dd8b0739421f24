"""``replay``: play a tape again, and tell what happens in it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from networkio_proto import Delivery, Effect, Event, Transmit
from networkio_proto.frames import PREAMBLE, frame_name
from networkio_proto.journal import JournalBatch

from .game import Game
from .swarm import play
from .tape import Tape, TapeError
from .world import Host, Watcher, Wire

__all__ = ["Teller", "add", "replay"]


class Teller(Watcher):
    """Prints one line for everything that happens."""

    def __init__(self, game: Game) -> None:
        self.world = game.world
        self._spoke: set[tuple[int, int]] = set()
        game.world.watchers.append(self)

    def say(self, text: str) -> None:
        """A line with the time."""
        print(f"{self.world.now:11.3f}  {text}")

    def booted(self, host: Host) -> None:
        self.say(f"{host.name}: a process begins, life {host.lives}")

    def crashed(self, host: Host) -> None:
        self.say(f"{host.name}: the process dies")

    def accepted(self, host: Host, peer: str, sequence: int, payload: bytes, options: object) -> None:
        self.say(f"{host.name}: sends {sequence} to {peer}, {len(payload)} bytes")

    def cancelled(self, host: Host, peer: str, sequence: int, certain: bool) -> None:
        self.say(f"{host.name}: cancels {sequence} to {peer}{'' if certain else ', perhaps too late'}")

    def handed_over(self, host: Host, peer: str, deliveries: Sequence[Delivery]) -> None:
        self.say(f"{host.name}: gets {[delivery[1] for delivery in deliveries]} from {peer}")

    def settled(self, host: Host, peer: str, delivery: Delivery, reject: tuple[int, str] | None) -> None:
        self.say(f"{host.name}: {'acknowledges' if reject is None else 'rejects'} {delivery[1]} of {peer}")

    def released(self, host: Host, peer: str, delivery: Delivery) -> None:
        self.say(f"{host.name}: gives back {delivery[1]} of {peer}")

    def effect(self, host: Host, effect: Effect) -> None:
        if not isinstance(effect, Transmit):
            self.say(f"{host.name}: effect {effect}")

    def noticed(self, host: Host, notice: Event) -> None:
        self.say(f"{host.name}: notice {notice}")

    def wrote(self, wire: Wire, end: int, buffers: Sequence[bytes | memoryview]) -> None:
        data = b"".join(buffers)
        place = 0 if (wire.number, end) in self._spoke else len(PREAMBLE)
        self._spoke.add((wire.number, end))
        frames = []
        while place + 6 <= len(data):
            length = int.from_bytes(data[place : place + 4], "big")
            frames.append(frame_name(data[place + 4]))
            place += 4 + length
        self.say(f"{wire.hosts[end].name}: writes {' '.join(frames)} on wire {wire.number}, {len(data)} bytes")

    def journaling(self, host: Host, batch: JournalBatch) -> None:
        self.say(f"{host.name}: writes {[type(record).__name__ for record in batch.records]} to its journal")

    def journaled(self, host: Host, batch: JournalBatch, error: OSError | None) -> None:
        self.say(f"{host.name}: batch {batch.token} is {'on disk' if error is None else error.strerror}")

    def arrived(self, wire: Wire, end: int) -> None:
        delivered = wire.pipes[1 - end].delivered
        self.say(f"{wire.hosts[end].name}: wire {wire.number} has brought {delivered} bytes so far")


def replay(tape: Tape, *, trace: bool = False) -> Game:
    """Play it; raises what it raised when it was written, if that is still so."""
    teller: list[Teller] = []

    def on_move(game: Game, move: tuple[Any, ...]) -> None:
        if not teller:
            teller.append(Teller(game))
        teller[0].say(f"-- {' '.join(map(str, move))}")

    return play(tape, on_move=on_move if trace else None)


def add(subparsers: Any) -> None:
    """The subcommand ``replay``."""
    parser = subparsers.add_parser("replay", help="play a tape again")
    parser.add_argument("tape", type=Path)
    parser.add_argument("--trace", action="store_true", help="tell every move and what came of it")
    parser.set_defaults(main=main)


def main(arguments: argparse.Namespace) -> int:
    """Play it, and say how it ended: 0 well, 1 not."""
    try:
        tape = Tape.load(arguments.tape)
    except (TapeError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        game = replay(tape, trace=arguments.trace)
    except Exception as error:
        print(f"after {len(tape.moves)} moves: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"nothing wrong in {len(tape.moves)} moves, {game.world.steps.total} events, trace {game.recorder.trace}")
    return 0
