"""The adapter stays thin: whatever decides belongs in the core."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType

import pytest

import networkio_asyncio
import networkio_threads

#: only starts the command
PROGRAMS = {"__main__.py"}
#: statements and signatures of each adapter; that for asyncio has two ways to a socket: anyio's, and a direct one with
#: links, accepting, dialling and waiting of its own (190), a way to the journal's thread and back (42), and what is
#: written out for speed in ``send`` and ``read`` (3); that for threads brings what the other has from
#: anyio: its loop, its dialling, and waiting that Ctrl-C and fork may strike
BUDGETS = {networkio_asyncio: 644, networkio_threads: 735}


@pytest.fixture
def nothing_leaks() -> None:
    """There is no event loop here."""


def lines(source: str) -> int:
    """Statements and signatures; docstrings and imports are not counted."""
    count = 0
    for item in ast.walk(ast.parse(source)):
        if isinstance(item, ast.stmt) and not isinstance(item, (ast.Import, ast.ImportFrom)):
            docstring = isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)
            count += not docstring
    return count


def test_statements_and_signatures_are_counted_and_docstrings_and_imports_are_not() -> None:
    source = '''
"""Doc."""
import os
def f() -> None:
    """Doc."""
    if os:
        return
    f()
'''
    assert lines(source) == 4


@pytest.mark.parametrize("package", BUDGETS, ids=lambda package: package.__name__)
def test_the_adapter_stays_within_its_budget(package: ModuleType) -> None:
    (place,) = package.__path__
    sizes = {
        path.name: lines(path.read_text(encoding="utf-8"))
        for path in Path(place).glob("*.py")
        if path.name not in PROGRAMS
    }
    assert "_node.py" in sizes
    assert sum(sizes.values()) <= BUDGETS[package], sizes
