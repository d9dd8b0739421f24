"""The mistakes that are planted to test the machines: each is still a change of one place of the core."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broken import break_core
from tests.fuzz.planted import MISTAKES, Mistake


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what)
def test_a_planted_mistake_can_still_be_made(mistake: Mistake, tmp_path: Path) -> None:
    break_core(tmp_path, [mistake.edit])
    source = (tmp_path / "networkio_proto" / f"{mistake.module}.py").read_text()
    compile(source, mistake.module, "exec")
    assert (Path(__file__).parent / f"{mistake.by}.py").is_file()
