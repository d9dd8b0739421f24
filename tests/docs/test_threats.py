"""The page on threats: every test that it names exists, and there is one for each attack."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "topics" / "threats.md").read_text(encoding="utf-8")


def test_every_test_that_it_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", TEXT)
    assert len(named) > 60
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not re.search(rf"^(?:async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []


def test_each_attack_has_its_tests() -> None:
    rows = re.findall(r"^\| (\d+) \| .* \|$", TEXT, re.MULTILINE)
    assert len(rows) == len(set(rows)) >= 50
    assert all("::test_" in line for line in re.findall(r"^\| \d+ \|.*$", TEXT, re.MULTILINE))
