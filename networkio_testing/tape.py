"""A decision tape: one game, written down, so that it can be played again, and made shorter.

A tape holds the seed of the world, how the world is set up, and every move with its arguments.  Nothing else decides
anything: a move that is left out shifts none of the others, and the cores draw from streams of their own, one for each
life of each host.  As a file it is JSON, one move a line, to be read and edited by people too::

    {"networkio tape": 1, "seed": 17, "world": {"pairs": ["ab", "ba"], ...}, "failure": "I4", "moves": [
    ["send", "ab", 20],
    ["cut", 0, 1, "rst", 14]]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Tape", "TapeError"]

_MARK = "networkio tape"
_VERSION = 1


class TapeError(ValueError):
    """A file is no tape that this version can play."""


@dataclass(slots=True)
class Tape:
    """One game: ``world`` is how it is set up, each of ``moves`` a name and its arguments."""

    seed: int
    world: Mapping[str, Any]
    moves: list[tuple[Any, ...]] = field(default_factory=list)
    #: what went wrong when it was played (:func:`~networkio_testing.swarm.signature`), and in what words
    failure: str | None = None
    words: str | None = None

    def save(self, path: Path) -> None:
        """Write it to a file."""
        head = {_MARK: _VERSION, "seed": self.seed, "world": dict(self.world)}
        head |= {"failure": self.failure, "words": self.words}
        moves = ",\n".join(json.dumps(move) for move in self.moves)
        path.write_text(f'{json.dumps(head)[:-1]}, "moves": [\n{moves}]}}\n')

    @classmethod
    def load(cls, path: Path) -> Tape:
        """Read it back.  Raises TapeError, OSError."""
        try:
            head = json.loads(path.read_text())
            if head[_MARK] != _VERSION:
                raise TapeError(f"{path} is a tape of version {head[_MARK]}, this is version {_VERSION}")
            moves = [tuple(move) for move in head["moves"]]
            return cls(head["seed"], head["world"], moves, head.get("failure"), head.get("words"))
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise TapeError(f"{path} is no tape: {type(error).__name__}: {error}") from error
