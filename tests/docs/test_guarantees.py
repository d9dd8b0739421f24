"""The guarantees name the tests that hold them: those are there, and every promise of this version names one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
TEST = re.compile(r"`(tests/[\w/.]+)`")


def test_the_tests_that_it_names_are_there() -> None:
    named = set(TEST.findall(TEXT))
    assert len(named) > 15
    for name in named:
        assert (ROOT / name).is_file(), name


def test_every_promise_names_its_tests() -> None:
    rows = re.findall(r"^\| (G\d+) \| (.*) \|$", TEXT, re.MULTILINE)
    assert [number for number, _ in rows] == [f"G{number}" for number in range(1, 13)]
    for number, row in rows:
        held_by = row.rsplit("|", 1)[1]
        assert TEST.search(held_by) or "not offered" in row, number
