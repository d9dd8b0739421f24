"""The Python of the documentation: every ``python`` block of every page, and what its marker says about it.

A marker is a comment of HTML on the line above the fence (an empty line in between does not matter):

``<!-- not run: REASON -->``          it is only checked to be Python
``<!-- run by: tests/docs/X.py -->``  a test of its own runs it
``<!-- run with the next -->``        two programs: this one is started first, and stopped by Ctrl-C at the end
``<!-- prints -->``                   above a ``text`` block: the program before it prints exactly this

A block without one is run by ``test_blocks.py``: a *program* (it imports an adapter) as it is printed, in a process of
its own, any other as a *fragment*, in the surroundings that ``fragments.py`` describes.  One thing is changed in both:
port 8080 becomes one that is free.
"""

from __future__ import annotations

import ast
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENVIRONMENT", "ROOT", "Block", "blocks_of", "free_port", "pages"]

ROOT = Path(__file__).parents[2]

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1"}

_BLOCK = re.compile(
    r"^(?:<!-- (?P<marker>.*?) -->\n\s*)?^(?P<indent> *)```(?P<language>python|text)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    line: int
    marker: str
    code: str
    #: what a ``text`` block marked as printed says
    prints: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def excuse(self) -> str:
        """Why it is not run ("" if it is)."""
        return self._after("not run:")

    @property
    def test(self) -> str:
        """The test that runs it, if it is one of its own."""
        return self._after("run by:")

    @property
    def with_next(self) -> bool:
        """Is it started before the next block, as its partner?"""
        return self.marker == "run with the next"

    @property
    def program(self) -> bool:
        """Is it complete, or a fragment?  One that dials port 8080 is not complete: somebody has to be there."""
        dials = re.search(r"connect(_unix)?\(", self.code) and "8080" in self.code
        adapter = re.search(r"^(from|import) networkio_(asyncio|threads)\b", self.code, re.MULTILINE)
        return bool(adapter) and not dials and not self.top_level_await

    @property
    def top_level_await(self) -> bool:
        """Does it await where only a fragment may?"""
        try:
            compile(self.code, str(self), "exec")
        except SyntaxError:
            return True
        return False

    def check(self) -> None:
        """Raise SyntaxError for what is no Python at all."""
        compile(self.code, str(self), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    def _after(self, word: str) -> str:
        return self.marker.removeprefix(word).strip() if self.marker.startswith(word) else ""


def pages() -> list[Path]:
    """Every page that people read."""
    return [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)]


def blocks_of(page: Path) -> list[Block]:
    """Its Python blocks, in order."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        marker, indent = match["marker"] or "", len(match["indent"])
        code = "".join(line[indent:] if line.strip() else line for line in match["code"].splitlines(keepends=True))
        if match["language"] == "python":
            line = text.count("\n", 0, match.start("code"))
            found.append(Block(page.relative_to(ROOT).as_posix(), line, marker, code))
        elif marker == "prints":
            before = found.pop()
            found.append(Block(before.page, before.line, before.marker, before.code, prints=code))
    return found


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
