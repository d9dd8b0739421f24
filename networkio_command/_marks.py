"""How far a file has come, kept in the journal's database: what makes a killed command go on exactly there.

Theory of operation
-------------------
A :class:`Mark` is a length, and the last bytes before it, by which the file is known again.  It is written in the same
transaction as the messages that it counts: those of ``send``'s input when they are accepted, those of ``listen``'s
output when they are acknowledged.  So on disk the two never disagree, wherever the process dies.

A file that is shorter than its mark, or has other bytes there, is not the file that the journal speaks of.  To go on in
it would lose or double lines in silence, so the command refuses.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, Self

from networkio_proto.errors import printable

from ._terminal import CommandError

__all__ = ["Mark", "Place"]

#: a file is known again by so many bytes before its mark
_TAIL = 4096

_TABLE = """\
CREATE TABLE IF NOT EXISTS command_file (
    role TEXT, peer TEXT, path TEXT, length INTEGER, tail BLOB, PRIMARY KEY (role, peer, path)
) WITHOUT ROWID"""


@dataclass(frozen=True, slots=True)
class Mark:
    """So many bytes of a file, of which the last ones are ``tail``."""

    length: int = 0
    tail: bytes = b""

    def after(self, data: bytes) -> Mark:
        """The mark behind ``data``, which follows this one."""
        return Mark(self.length + len(data), (self.tail + data[-_TAIL:])[-_TAIL:])

    @property
    def digest(self) -> bytes:
        """What stands for the tail in the database."""
        return sha256(self.tail).digest()

    @classmethod
    def at(cls, descriptor: int, length: int) -> Self:
        """The mark of an open file at ``length``; reading goes on there.  Raises OSError."""
        begin = max(0, length - _TAIL)
        os.lseek(descriptor, begin, os.SEEK_SET)
        tail = b""
        while begin + len(tail) < length and (data := os.read(descriptor, length - begin - len(tail))):
            tail += data
        return cls(begin + len(tail), tail)


class Place:
    """Where the mark of one file is kept: ``input`` to one peer, or ``output``."""

    def __init__(self, role: Literal["input", "output"], path: str, peer_id: str = "") -> None:
        self._path = path
        self._key = (role, peer_id, os.path.realpath(path))

    @property
    def directory(self) -> str:
        """Where the file's name stands."""
        return os.path.dirname(self._key[2])

    def load(self, db: Any) -> tuple[int, bytes] | None:
        """In a transaction: the length and the digest that are kept, if there are any."""
        db.execute(_TABLE)
        text = "SELECT length, tail FROM command_file WHERE role = ? AND peer = ? AND path = ?"
        found: tuple[int, bytes] | None = db.execute(text, self._key).fetchone()
        return found

    def save(self, db: Any, mark: Mark) -> None:
        """In a transaction: keep this one."""
        text = "INSERT OR REPLACE INTO command_file VALUES (?, ?, ?, ?, ?)"
        db.execute(text, (*self._key, mark.length, mark.digest))

    def find(self, descriptor: int, kept: tuple[int, bytes]) -> Mark:
        """The mark that is kept, in the open file; reading goes on there.

        Raises CommandError if it is not the file that was marked, OSError.
        """
        length, digest = kept
        mark = Mark.at(descriptor, length)
        if mark.length == length and mark.digest == digest:
            return mark
        name = printable(self._path)
        why = "is shorter" if mark.length < length else "has other bytes before that"
        raise CommandError(
            f"{name} is not the file that the journal knows: it had {length:,} bytes, and this one {why}; "
            "bring back that file, or begin with another journal or another file"
        )
