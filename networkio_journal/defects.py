"""Versions of SQLite that can damage a file, and what it takes.

Theory of operation
-------------------
A table of defects: the versions that have it, as half-open ranges, and what a program must do to meet it.  A journal
has one connection to its file, which no other program can open meanwhile (``locking_mode=EXCLUSIVE``), and sets no
savepoint.  (The function of an application may do that, and cannot set ``temp_store``.)  So it meets none of those that
stand here, and :func:`warnings_for` has nothing to say; it is asked at each opening all the same, with what the journal
really does.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["DEFECTS", "JOURNAL_NEEDS", "Defect", "Need", "Version", "warnings_for"]

Version: TypeAlias = tuple[int, int, int]

#: what a program does with a file: several connections in WAL mode; savepoints rolled back with temp_store=MEMORY
Need = Literal["connections", "savepoints"]


@dataclass(frozen=True, slots=True)
class Defect:
    """Versions from the first of each pair on, below the second, have it."""

    name: str
    needs: Need
    versions: tuple[tuple[Version, Version], ...]


DEFECTS: Final = (
    Defect(
        "WAL-reset bug (sqlite.org/wal.html#walresetbug)",
        "connections",  # two that write or checkpoint at the same moment
        (((3, 7, 0), (3, 44, 6)), ((3, 45, 0), (3, 50, 7)), ((3, 51, 0), (3, 51, 3))),
    ),
    Defect(
        "savepoint bug (sqlite.org/releaselog/3_37_2.html)",
        "savepoints",
        (((3, 35, 0), (3, 37, 2)),),
    ),
)

#: what of that a journal does
JOURNAL_NEEDS: Final[frozenset[Need]] = frozenset()


def warnings_for(version: Version, needs: Collection[Need] = JOURNAL_NEEDS) -> list[str]:
    """One sentence for each defect that this version has and a program with these needs can meet."""
    return [
        f"SQLite {'.'.join(map(str, version))} can damage a journal by its {defect.name}; use a later version"
        for defect in DEFECTS
        if defect.needs in needs and any(since <= version < fixed for since, fixed in defect.versions)
    ]
