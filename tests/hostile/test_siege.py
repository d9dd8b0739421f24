"""The attacks of tests.hostile in short: a few hundred connections, a second of flood.  In full: make hostile."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hostile.attacks import besieged, flood, held, silent
from tests.hostile.payloads import bombs


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["asyncio", "threads"])
def test_strangers_cost_little_and_keep_nobody_out(adapter: str) -> None:
    """Attacks 1 and 4: memory of those who say nothing, and honest newcomers among those who hold handshakes open."""
    few: dict[str, Any] = {"max_pending": 400, "max_pending_per_source": 400, "handshake_timeout": 2.0}
    with besieged(adapter, **few) as siege:
        assert silent(siege, 300, speaking=False)["bytes_each"] <= 8192
        figures = held(siege, 600, asks=50, comes=20)
        assert figures["pending"] <= 400
        assert figures["stormy"]["let_in"]["p99"] < 5000
        siege.leave()
        poured = flood(siege, 500, 1.0)
        assert poured["left_descriptors"] <= 0
        assert poured["peak_mib"] < 64


@pytest.mark.slow
def test_a_payload_of_a_mebibyte_takes_a_bounded_multiple_of_it() -> None:
    """Attacks 34 to 37; how long it takes is measured by make hostile."""
    figures = bombs()
    assert {name: each["times"] for name, each in figures.items() if each["times"] > 16} == {}
    refused = {name for name, each in figures.items() if each["refused"]}
    assert {"empty arrays", "one nest", "nests", "noise", "a declared length without its bytes"} <= refused
    assert not refused & {"one string", "one binary"}
