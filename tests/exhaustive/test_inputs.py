"""Every call of an application in every state of a connection, in every role; and after it, every input.

``tests/proto/test_table.py`` has the table of frames; this is that of calls.  Its words say what is heard on the line
and what becomes of it: "keep" is nothing, a frame's name is that one frame, and the name of a close code is CLOSE with
it.  What comes after a call is judged for G11 alone: events or one clean close, no exception, and timers that rest.
:class:`~tests.proto.helpers_wire.Node` sees to it that no connection ends twice and that nothing is said after an end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pytest

from networkio_proto import CloseCode, ConnectionState, NetworkioError
from tests.exhaustive.conversation import FULL, report
from tests.proto.helpers_wire import CLOSE, DATA, FIN, PING, fingerprint
from tests.proto.test_table import Case, seats
from tests.proto.test_table import cells as frame_cells

TABLE = """
call              START       GREETED     AGREED      CLAIMED     PARKED      LIVE        MIDST       CLOSING  CLOSED
send              keep        keep        keep        keep        keep        DATA        DATA        keep     keep
take              keep        keep        keep        keep        keep        keep        keep        keep     keep
cancel            keep        keep        keep        keep        keep        keep        keep        keep     keep
drain             keep        keep        keep        keep        keep        keep        keep        keep     keep
measure           keep        keep        keep        keep        keep        PING        PING        keep     keep
end               keep        keep        keep        keep        keep        FIN         FIN         keep     keep
abort             keep        NORMAL      NORMAL      NORMAL      NORMAL      ABORT       ABORT       keep     keep
disconnect        keep        NORMAL      NORMAL      NORMAL      NORMAL      NORMAL      NORMAL      keep     keep
close             NORMAL      NORMAL      NORMAL      NORMAL      NORMAL      NORMAL      NORMAL      keep     keep
leave             RESTARTING  RESTARTING  RESTARTING  RESTARTING  RESTARTING  RESTARTING  RESTARTING  keep     keep
add a target      keep        keep        keep        keep        keep        keep        keep        keep     keep
remove targets    keep        keep        keep        keep        keep        keep        keep        keep     keep
accept another    keep        keep        keep        keep        keep        keep        keep        keep     keep
"""


def _close(case: Case) -> None:
    case.line.connection.close(CloseCode.NORMAL, "", case.node.now)


def _remove_targets(case: Case) -> None:
    for target in list(case.node.endpoint.targets):
        case.node.endpoint.remove_target(target)


CALLS: Final[dict[str, Callable[[Case], object]]] = {
    "send": lambda case: case.node.send(case.peer, b"more"),
    "take": lambda case: case.session.take(5),
    "cancel": lambda case: case.session.cancel(1, case.node.now),
    "drain": lambda case: case.session.drain(case.node.now),
    "measure": lambda case: case.session.measure(case.node.now),
    "end": lambda case: case.session.end(case.node.now),
    "abort": lambda case: case.session.abort(case.node.now),
    "disconnect": lambda case: case.session.disconnect(case.node.now),
    "close": _close,
    "leave": lambda case: case.node.endpoint.close(case.node.now),
    "add a target": lambda case: case.node.add_target(case.peer.peer_id, "there"),
    "remove targets": _remove_targets,
    "accept another": lambda case: case.node.accept(),
}

#: calls that change what a session knows; the others are about connections
ABOUT_MESSAGES: Final = {"send", "cancel", "drain", "end", "abort"}

_FRAMES: Final = {"DATA": DATA, "FIN": FIN, "PING": PING}


def cells() -> Iterator[tuple[str, str, str]]:
    """(state, call, the word) of each cell of the table."""
    head, *rows = TABLE.strip().splitlines()
    states = head.split()[1:]
    for row in rows:
        call, words = row[:18].strip(), row[18:].split()
        yield from ((state, call, word) for state, word in zip(states, words, strict=True))


def settled(state: str, role: str, peer_id: str) -> Case:
    """A case in which a PING may be asked for again."""
    case = Case(state, role, peer_id)
    case.node.advance(1.5)
    case.line.raw()
    return case


@pytest.mark.parametrize(
    ("state", "call", "word"), [pytest.param(*cell, id=f"{cell[0]}-{cell[1]}") for cell in cells()]
)
def test_every_state_answers_every_call(state: str, call: str, word: str) -> None:
    for seat in seats(state):
        case = settled(state, *seat)
        entered, before = case.line.state, fingerprint(case.node.endpoint, connected=False)
        CALLS[call](case)
        case.node.pump()
        if word == "keep":
            assert case.line.raw() == b""
            assert case.line.state is entered
        elif word in _FRAMES:
            assert case.line.kinds()[-1] == _FRAMES[word]
            assert case.line.state is ConnectionState.LIVE
        else:
            assert case.line.farewell() is CloseCode[word]
            assert case.line.state is ConnectionState.CLOSING
        if call not in ABOUT_MESSAGES:
            assert fingerprint(case.node.endpoint, connected=False) == before


@pytest.mark.slow
@pytest.mark.parametrize("state", TABLE.split()[1:10])
def test_whatever_comes_after_whatever_call_ends_in_events_or_one_clean_close(state: str) -> None:
    played = 0
    for seat in seats(state) if FULL else seats(state)[:1]:
        for call in CALLS:
            for received in sorted({cell[1] for cell in frame_cells()}):
                case = settled(state, *seat)
                CALLS[call](case)
                case.node.pump()
                case.receive(received)
                judge(case)
                played += 1
    report(f"a call and an input in state {state}: {played}")


def judge(case: Case) -> None:
    """G11, and that is not for ever: two minutes later the connection is over, and said why."""
    node, line = case.node, case.line
    node.advance(120.0)
    assert line.closed is not None
    assert line.connection.error is not None
    assert line.state in (ConnectionState.CLOSING, ConnectionState.CLOSED)
    assert CLOSE not in line.kinds()[:-1]
    try:
        node.send(case.peer, b"afterwards")
    except NetworkioError:
        pass
