"""What the state machines and the fuzzer found, each as a test of its own."""

from __future__ import annotations

import pytest

from networkio_proto import CloseCode
from tests.proto import helpers_wire as wire
from tests.proto.helpers_wire import opened

LAST = 2**63 - 1


@pytest.mark.parametrize(
    "frame",
    [wire.data(5), wire.data(LAST, flags=wire.ACK_NOW), wire.skip(3, 4), wire.skip(LAST, LAST), wire.fin(6)],
    ids=("DATA", "DATA of the last sequence", "SKIP", "SKIP of the last sequence", "FIN"),
)
def test_after_a_skip_to_the_last_sequence_nothing_of_that_outbox_may_come(frame: bytes) -> None:
    """P-SKIP-13: also what would else be dropped or ignored."""
    node, peer, line = opened()
    line.say(wire.skip(1, LAST))
    assert line.live
    line.raw()
    line.say(wire.ping())
    assert line.live
    line.say(frame)
    assert line.farewell() is CloseCode.PROTOCOL
    assert node.session(peer).positions.read == 0
