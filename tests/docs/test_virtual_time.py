"""The how-to page "howto/virtual-time.md": its blocks are tests, and pass where nothing but networkio is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import ROOT, blocks_of


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    blocks = blocks_of(ROOT / "docs" / "howto" / "virtual-time.md")
    for number, block in enumerate(blocks):
        (tmp_path / f"test_{number}.py").write_text(block.code, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )
    tests = sum(block.code.count("def test_") for block in blocks)
    assert f"= {tests + 9} passed in " in result.stdout, result.stdout  # one has ten seeds
