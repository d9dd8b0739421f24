"""A copy of the core with a mistake in it, for tests of the tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

__all__ = ["break_core"]

ROOT = Path(__file__).parents[1]


def break_core(directory: Path, edits: Iterable[tuple[str, str, str]]) -> None:
    """Copy the core to there, with everything that tests need beside it.

    In each module that ``edits`` name, a text stands once and becomes another.  If it is not found any more, the core
    has changed: adapt the mistake.
    """
    core = directory / "networkio_proto"
    shutil.copytree(ROOT / "networkio_proto", core, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("networkio_testing", "tests", "docs", "pyproject.toml"):
        (directory / name).symlink_to(ROOT / name)
    for module, old, new in edits:
        file = core / f"{module}.py"
        source = file.read_text()
        assert source.count(old) == 1, old
        file.write_text(source.replace(old, new))
