"""The adapter stays thin: whatever decides belongs in the core."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import networkio_asyncio

#: the command and its demonstration are programs that use the adapter
PROGRAMS = {"__main__.py", "_demo.py"}
BUDGET = 550


@pytest.fixture
def nothing_leaks() -> None:
    """There is no event loop here."""


def lines(source: str) -> int:
    """Statements and signatures, docstrings not counted."""
    count = 0
    for item in ast.walk(ast.parse(source)):
        if isinstance(item, ast.stmt):
            docstring = isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)
            count += not docstring
    return count


def test_statements_and_signatures_are_counted_and_docstrings_are_not() -> None:
    source = '''
"""Doc."""
import os
def f() -> None:
    """Doc."""
    if os:
        return
    f()
'''
    assert lines(source) == 5


@pytest.mark.xfail(reason="it counts 668 and has to shed some, or the budget has to grow", strict=True)
def test_the_adapter_is_near_500_statements_and_signatures() -> None:
    (place,) = networkio_asyncio.__path__
    sizes = {
        path.name: lines(path.read_text(encoding="utf-8"))
        for path in Path(place).glob("*.py")
        if path.name not in PROGRAMS
    }
    assert "_node.py" in sizes
    assert sum(sizes.values()) <= BUDGET, sizes
