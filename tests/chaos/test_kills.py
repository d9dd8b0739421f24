"""The short form of ``tests.chaos.kills`` (and of ``make crash``)."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.chaos.kills import carry, write_lines


@pytest.mark.slow
def test_output_is_the_input_though_both_ends_are_killed_again_and_again(tmp_path: Path) -> None:
    write_lines(tmp_path / "in", 60_000, Random(5))
    kills = carry(tmp_path / "in", tmp_path, 5, "threads", 1.5, most=8)
    assert sum(kills) >= 2
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()
