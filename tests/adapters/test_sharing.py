"""What two adapters would write alike belongs into the core: how much of each one stands in the other as well."""

from __future__ import annotations

import ast
import textwrap
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import networkio_asyncio
import networkio_threads

#: the command and its demonstration are programs that use the adapter
PROGRAMS = {"__main__.py", "_demo.py"}
#: the share of an adapter's statements that may stand in the other one too
GOAL = 0.15
ADAPTERS = (networkio_asyncio, networkio_threads)


@pytest.fixture
def nothing_leaks() -> None:
    """There is no event loop here."""


class Blocking(ast.NodeTransformer):
    """Takes ``async`` and ``await`` out of whatever it visits."""

    def visit_Await(self, item: ast.Await) -> ast.expr:
        inner: ast.expr = self.visit(item.value)
        return inner

    def visit_AsyncFor(self, item: ast.AsyncFor) -> ast.stmt:
        return self._as(ast.For, item)

    def visit_AsyncWith(self, item: ast.AsyncWith) -> ast.stmt:
        return self._as(ast.With, item)

    def visit_AsyncFunctionDef(self, item: ast.AsyncFunctionDef) -> ast.stmt:
        return self._as(ast.FunctionDef, item)

    def visit_comprehension(self, item: ast.comprehension) -> ast.comprehension:
        self.generic_visit(item)
        item.is_async = 0
        return item

    def _as(self, kind: type[ast.stmt], item: ast.stmt) -> ast.stmt:
        self.generic_visit(item)
        return kind(**{name: getattr(item, name) for name in item._fields}, lineno=item.lineno, col_offset=0)


def statements(source: str) -> list[str]:
    """The text of each statement.  Docstrings, imports, signatures do not count.

    The text of a compound statement is all of it, and those inside of it count by themselves as well.  By its first
    line alone, every ``try:`` would be the same statement as every other one, whatever it is that is tried.
    """
    found = []
    uncounted = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for item in ast.walk(Blocking().visit(ast.parse(source))):
        if not isinstance(item, ast.stmt) or isinstance(item, uncounted):
            continue
        if isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant):
            continue
        found.append(ast.unparse(item))
    return found


def adapter(package: ModuleType) -> Counter[str]:
    (place,) = package.__path__
    paths = [path for path in sorted(Path(place).glob("*.py")) if path.name not in PROGRAMS]
    return Counter(text for path in paths for text in statements(path.read_text(encoding="utf-8")))


def test_what_is_measured() -> None:
    waiting = "async def f():\n    'Doc.'\n    async with x as y:\n        await y.z(await a)\n    return\n"
    blocking = "import b\ndef g():\n    with x as y:\n        y.z(a)\n    return\n"
    assert statements(waiting) == statements(blocking) == ["with x as y:\n    y.z(a)", "return", "y.z(a)"]


def test_a_compound_statement_is_the_same_when_all_of_it_is() -> None:
    tried = "try:\n    {}\nexcept OSError:\n    return\n"
    one, other = (statements("def f():\n" + textwrap.indent(tried.format(what), "    ")) for what in ("a()", "b()"))
    assert [len(one), len(set(one) & set(other))] == [3, 1]  # the return


def test_async_and_await_are_dropped_wherever_they_are() -> None:
    waiting = "async def f():\n    async for a in b:\n        async def c():\n            return [d async for d in e]\n"
    assert statements(waiting) == statements(waiting.replace("async ", ""))
    assert len(statements(waiting)) == 2


def shares() -> tuple[dict[ModuleType, float], str]:
    """The share of each adapter that stands in the other one too, and those statements."""
    adapters = {package: adapter(package) for package in ADAPTERS}
    shared = adapters[networkio_asyncio] & adapters[networkio_threads]
    report = "\n".join(f"{count} {text}" for text, count in shared.most_common())
    return {package: shared.total() / every.total() for package, every in adapters.items()}, report


def test_the_adapters_have_little_in_common() -> None:
    found, report = shares()
    assert all(share < GOAL for share in found.values()), f"{found}\n{report}"
