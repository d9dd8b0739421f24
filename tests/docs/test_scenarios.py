"""The page on scenarios: every test and script that it names exists, and every story is named."""

from __future__ import annotations

import re
from pathlib import Path

from tests.scenarios.test_counterexamples import RULES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "topics" / "scenarios.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", TEXT))
DEFINED = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


def defined_in(path: str) -> set[str]:
    """The tests that a file defines."""
    return set(DEFINED.findall((ROOT / path).read_text(encoding="utf-8")))


def rows(text: str) -> list[str]:
    """Those of the tables."""
    return [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| case ")]


def test_every_test_that_it_names_exists() -> None:
    assert len(NAMED) > 100
    files = {path: defined_in(path) for path, _ in NAMED}
    assert sorted((path, name) for path, name in NAMED if name not in files[path]) == []


def test_every_script_that_it_names_exists() -> None:
    folder = ROOT / "networkio_testing" / "conformance" / "scripts"
    cases = {
        name
        for script in folder.glob("*.script")
        for name in re.findall(r"^case ([^:]+):", script.read_text(encoding="utf-8"), re.MULTILINE)
    }
    named = set(re.findall(r"`script ([^`]+)`", TEXT))
    assert named
    assert named <= cases


def test_every_scenario_is_named() -> None:
    """But for those that look after the others."""
    ours = [*(ROOT / "tests" / "scenarios").glob("test_*.py"), *(ROOT / "tests" / "adapters").rglob("test_edges.py")]
    stories = {(str(file.relative_to(ROOT)), name) for file in ours for name in defined_in(str(file.relative_to(ROOT)))}
    assert len(stories) > 90
    left = {name for _, name in stories - NAMED}
    assert left == {"test_every_story_of_this_module_has_its_rule"}


def test_each_row_of_its_tables_names_a_test_or_a_script() -> None:
    for row in rows(TEXT):
        assert "`tests/" in row or "`script " in row, row


def test_the_page_on_testing_tells_how_many_there_are() -> None:
    cases, counterexamples = TEXT.split("## Counterexamples")
    tested = " ".join((ROOT / "docs" / "topics" / "tested.md").read_text(encoding="utf-8").split())
    assert f"{len(rows(cases))} cases and {len(rows(counterexamples))} counterexamples" in tested
    assert f"({len(RULES)} times in all)" in tested
