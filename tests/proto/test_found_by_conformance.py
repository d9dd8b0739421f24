"""Defects that the conformance scripts brought up, each as the case that showed it."""

from __future__ import annotations

import pytest

from networkio_proto import CloseCode
from tests.proto.helpers_wire import data, fin, opened, skip

LAST = 2**63 - 1


@pytest.mark.parametrize("more", [data(1), skip(1, 1), fin(1)], ids=["DATA", "SKIP", "FIN"])
def test_no_sequence_is_left_after_a_skip_up_to_the_last(more: bytes) -> None:
    """P-SKIP-13: also what would else be dropped or ignored is a breach of the protocol."""
    _, _, line = opened()
    line.say(skip(1, LAST))
    line.heard()
    line.say(more)
    assert line.farewell() is CloseCode.PROTOCOL
