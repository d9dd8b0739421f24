"""The scripts: which there are, what each covers, and what its lines say.

Theory of operation
-------------------
A file holds the cases of one chapter of the specification.  A case begins with ``case name: A sentence.``, states in
its header what it covers and where it runs, and goes on with steps, one a line.  A case with a table (``each:``) stands
for as many cases as the table has rows; ``<column>`` in it is replaced by what the row says.  The syntax is documented
for implementers (docs/reference/conformance.md); this module knows no more of it than the shape of a case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files

from .values import ScriptError

__all__ = ["Case", "Step", "load", "read_cases"]

_BEGIN = re.compile(r"case ([A-Za-z0-9<>_-]+): (.+)\Z")
_HEADER = re.compile(r"(covers:|role:|peer:|node:|each:|wire\Z)\s*(.*)\Z")


@dataclass(frozen=True)
class Step:
    """One line: who acts (``I>``, ``E<``, ``A:``, a word), and the rest of it."""

    line: int
    text: str


@dataclass(frozen=True)
class Case:
    """One script."""

    name: str
    title: str
    chapter: str
    covers: tuple[str, ...]
    #: what the implementation is on the connection: ``acceptor`` or ``dialer``
    role: str = "acceptor"
    #: is the tester the arbiter of the session?  Else the implementation is
    arbiter: bool = False
    #: can it be played at any implementation that serves the echo application?
    wire: bool = False
    #: settings of the implementation, where the runner makes it: ``key=value`` words
    node: str = ""
    steps: tuple[Step, ...] = field(default=(), repr=False)


def load() -> list[Case]:
    """Every case there is, in the order of the chapters.  Raises ScriptError."""
    cases: list[Case] = []
    for path in sorted(files(__package__).joinpath("scripts").iterdir(), key=lambda path: path.name):
        if path.name.endswith(".script"):
            cases += read_cases(path.name.removesuffix(".script"), path.read_text(encoding="utf-8"))
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ScriptError(f"two cases have one name: {', '.join(sorted(twice))}")
    return cases


def read_cases(chapter: str, text: str) -> list[Case]:
    """The cases of one file."""
    blocks: list[list[tuple[int, str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line.startswith("case "):
            blocks.append([])
        elif not blocks:
            raise ScriptError(f"{chapter}, line {number}: a case begins with 'case name: A sentence.'")
        blocks[-1].append((number, line))
    return [case for block in blocks for case in _read_case(chapter, block)]


def _read_case(chapter: str, block: list[tuple[int, str]]) -> Iterator[Case]:
    number, first = block[0]
    begin = _BEGIN.match(first.strip())
    if begin is None or not begin[2].endswith("."):
        raise ScriptError(f"{chapter}, line {number}: not 'case name: A sentence.'")
    header: dict[str, str] = {}
    rows: list[list[str]] = []
    rest = block[1:]
    while rest and (found := _HEADER.match(rest[0][1])):
        header[found[1].removesuffix(":")] = found[2]
        rest = rest[1:]
        while found[1] == "each:" and rest and rest[0][1][0] == " ":
            rows.append([cell.strip() for cell in re.split(r"\s\|(?=\s|\Z)", rest[0][1].strip())])
            rest = rest[1:]
    columns = header.get("each", "").split()
    if any(len(row) != len(columns) for row in rows):
        raise ScriptError(f"{chapter}, line {number}: a row has not as many cells as there are columns")
    for row in rows or [[]]:
        cells = dict(zip(columns, row, strict=True))
        yield Case(
            name=_fill(begin[1], cells),
            title=_fill(begin[2], cells),
            chapter=chapter,
            covers=tuple(_fill(header.get("covers", ""), cells).split()),
            role=header.get("role", "acceptor"),
            arbiter=header.get("peer") == "arbiter",
            wire="wire" in header,
            node=_fill(header.get("node", ""), cells),
            steps=tuple(Step(line, _fill(text, cells).strip()) for line, text in rest),
        )


def _fill(text: str, cells: dict[str, str]) -> str:
    for column, cell in cells.items():
        text = text.replace(f"<{column}>", cell)
    return text
