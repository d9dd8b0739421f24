"""An instrumentation is told of every message, sees no payload, and can do no harm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from networkio_proto import (
    CloseCode,
    Config,
    ConnectionFailure,
    HandedOver,
    Instrumentation,
    Limits,
    MessageTooLarge,
    OutboxFull,
    Outcome,
)
from networkio_proto.events import ResumeReport
from networkio_proto.instrumentation import How
from networkio_proto.logbook import ERROR
from networkio_proto.requests import REPLY
from tests.proto.helpers_wire import HEADERS, REDELIVERED, Line, Node, Peer, ack, data, dialled, exchange, reject

#: what each method is told, but for its name
Told = tuple[Any, ...]


class Notebook(Instrumentation):
    """Writes down what it is told, and adds a header where it was asked to."""

    def __init__(self, added: Mapping[str, object] | None = None) -> None:
        self.told: list[Told] = []
        self.added = added or {}

    def sending(self, peer_id: str, headers: Mapping[str, object]) -> Mapping[str, object]:
        self.told.append(("sending", peer_id, dict(headers)))
        return {**headers, **self.added}

    def accepted(self, peer_id: str, sequence: int, headers: Mapping[str, object]) -> None:
        self.told.append(("accepted", peer_id, sequence, dict(headers)))

    def outcome(self, peer_id: str, sequence: int, outcome: Outcome) -> None:
        self.told.append(("outcome", peer_id, sequence, outcome))

    def receiving(self, message: HandedOver) -> None:
        self.told.append(("receiving", message))

    def settled(self, message: HandedOver, how: How) -> None:
        self.told.append(("settled", message, how))

    def connected(self, peer_id: str, report: ResumeReport) -> None:
        self.told.append(("connected", peer_id, report.connections))

    def disconnected(self, peer_id: str, error: ConnectionFailure) -> None:
        self.told.append(("disconnected", peer_id, error.code))

    def take(self, *kinds: str) -> list[Told]:
        """What was told of these kinds, or of all, since the last look."""
        told, self.told = self.told, []
        return [told_of for told_of in told if not kinds or told_of[0] in kinds]


def watched(added: Mapping[str, object] | None = None, **settings: Any) -> tuple[Notebook, Node, Peer, Line]:
    """A node with a notebook, live with a peer that speaks by hand."""
    notebook, peer = Notebook(added), Peer()
    node = Node(config=Config(**settings), instrumentation=notebook)
    line = node.connect(peer)
    line.raw()
    notebook.take()
    return notebook, node, peer, line


def send(node: Node, peer: Peer, payload: bytes = b"x", **options: Any) -> int:
    sequence = node.session(peer).send(payload, node.now, **options)
    node.pump()
    return sequence


# -- sending ----------------------------------------------------------------------------------------------------------


def test_a_message_is_told_before_it_is_accepted_and_after() -> None:
    notebook, node, peer, _ = watched()
    send(node, peer, headers={"k": 1})
    send(node, peer)
    assert notebook.take() == [
        ("sending", "a", {"k": 1}), ("accepted", "a", 1, {"k": 1}), ("sending", "a", {}), ("accepted", "a", 2, {})
    ]  # fmt: skip


def test_headers_that_it_adds_arrive_and_the_caller_s_stay_as_they_were() -> None:
    notebook = Notebook({"traceparent": "00-1"})
    dialer, acceptor = Node("d", instrumentation=notebook), Node("m")
    near, far = dialled(dialer, acceptor)
    exchange(near, far)
    mine = {"k": 1}
    dialer.session("m").send(b"with", dialer.now, headers=mine)
    dialer.session("m").send(b"without", dialer.now)
    dialer.pump()
    exchange(near, far)
    first, second = acceptor.session("d").take(2)
    assert first[4] is not None
    assert second[4] is not None
    assert first[4].headers == {"k": 1, "traceparent": "00-1"}
    assert second[4].headers == {"traceparent": "00-1"}
    assert mine == {"k": 1}
    assert [told[3] for told in notebook.take("accepted")] == [{"k": 1, "traceparent": "00-1"}, {"traceparent": "00-1"}]


def test_it_may_take_headers_away_and_the_library_s_own_stay() -> None:
    class Without(Instrumentation):
        def sending(self, peer_id: str, headers: Mapping[str, object]) -> Mapping[str, object]:
            assert isinstance(headers, dict)
            headers.clear()
            return headers

    node, peer = Node(instrumentation=Without()), Peer()
    node.connect(peer)
    send(node, peer, headers={"k": 1})
    assert node.session(peer).outbox.entry(1).headers == b""
    send(node, peer, headers={"k": 1}, reserved={REPLY: b"1" * 16})
    assert b".reply" in node.session(peer).outbox.entry(2).headers
    assert b"k" not in node.session(peer).outbox.entry(2).headers.replace(b".reply", b"")


def test_a_message_that_is_refused_is_not_told() -> None:
    notebook, node, peer, _ = watched(outbox_limit=65)
    with pytest.raises(MessageTooLarge):
        send(node, peer, bytes(20 * 1024 * 1024))
    send(node, peer)
    notebook.take()
    with pytest.raises(OutboxFull):
        send(node, peer)
    assert notebook.take() == []


# -- outcomes ---------------------------------------------------------------------------------------------------------


def test_each_message_has_one_outcome_told() -> None:
    notebook, node, peer, line = watched()
    for payload in (b"1", b"2", b"3" * 3000, b"4"):
        send(node, peer, payload)
    notebook.take()
    line.say(reject(node.session(peer).outbox.outbox_id, 2), ack(3, 1))
    assert notebook.take() == [("outcome", "a", 2, Outcome.REJECTED), ("outcome", "a", 1, Outcome.READ)]
    line.say(ack(4, 4))
    assert notebook.take() == [("outcome", "a", 3, Outcome.READ), ("outcome", "a", 4, Outcome.READ)]


def test_what_ends_otherwise_is_told_when_it_does_and_fin_is_no_message() -> None:
    notebook, node, peer, line = watched(outbox_limit=200)
    line.lose()
    sequence = send(node, peer)
    assert node.session(peer).cancel(sequence, node.now)
    send(node, peer, ttl=1.0)
    send(node, peer)
    node.advance(2.0)
    node.session(peer).end(node.now)
    node.session(peer).abort(node.now)
    assert notebook.take("outcome") == [
        ("outcome", "a", 1, Outcome.CANCELLED),
        ("outcome", "a", 2, Outcome.EXPIRED),
        ("outcome", "a", 3, Outcome.ABANDONED),
    ]


def test_an_end_that_was_read_is_told_for_the_messages_alone() -> None:
    notebook, node, peer, line = watched()
    send(node, peer)
    node.session(peer).end(node.now)
    node.pump()
    line.say(ack(2, 2))
    assert notebook.take("outcome") == [("outcome", "a", 1, Outcome.READ)]


# -- receiving --------------------------------------------------------------------------------------------------------


def test_a_message_is_told_when_it_is_handed_over_and_when_it_is_settled_without_its_payload() -> None:
    notebook, node, peer, line = watched()
    line.say(data(1, b"payload", headers={"k": 1, ".x": 2}, flags=HEADERS | REDELIVERED), data(2), data(3))
    session = node.session(peer)
    first, second = session.take(2)
    handed = HandedOver("a", f"{peer.outbox.hex()}-1", 1, {"k": 1}, 7, 1, True)
    plain = HandedOver("a", f"{peer.outbox.hex()}-2", 2, {}, 7, 1, False)
    assert notebook.take() == [("receiving", handed), ("receiving", plain)]
    session.settle(first, node.now)
    session.settle(second, node.now, reject=(7, "no"))
    assert notebook.take() == [("settled", handed, "acknowledged"), ("settled", plain, "rejected")]
    third = session.take(1)[0]
    session.release(third, node.now)
    again = session.take_one()
    assert again is not None
    told = notebook.take()
    assert [(kind, message.attempt, *how) for kind, message, *how in told] == [
        ("receiving", 1), ("settled", 1, "released"), ("receiving", 2)
    ]  # fmt: skip
    assert len({message.id for _, message, *_ in told}) == 1
    session.settle(again, node.now)
    assert not any(b"payload" in repr(thing).encode() for thing in told)


def test_taking_and_settling_at_once_is_both() -> None:
    notebook, node, peer, line = watched()
    line.say(data(1), data(2))
    node.session(peer).take_settled(9, node.now)
    assert [(told[0], told[1].sequence) for told in notebook.take()] == [
        ("receiving", 1), ("settled", 1), ("receiving", 2), ("settled", 2)
    ]  # fmt: skip


def test_settling_many_tells_of_each() -> None:
    notebook, node, peer, line = watched()
    line.say(data(1), data(2))
    session = node.session(peer)
    taken = session.take(2)
    notebook.take()
    session.settle_all(taken, node.now)
    assert [(told[0], told[1].sequence, told[2]) for told in notebook.take()] == [
        ("settled", 1, "acknowledged"), ("settled", 2, "acknowledged")
    ]  # fmt: skip


def test_a_reply_is_told_when_it_is_handed_to_who_waits_and_one_that_is_dropped_is_not() -> None:
    notebook, node, peer, line = watched()
    session = node.session(peer)
    request = session.requests.open(b"1" * 16)
    line.say(data(1, headers={REPLY: b"1" * 16}), data(2, headers={REPLY: b"2" * 16}))
    [(kind, message)] = notebook.take()
    assert (kind, message.sequence, message.headers) == ("receiving", 1, {})
    assert request.delivery is not None
    session.settle(request.delivery, node.now)
    assert [told[2] for told in notebook.take()] == ["acknowledged"]
    assert session.inbox is not None
    assert session.inbox.read == 2


def test_a_message_keeps_its_name_where_it_changed_its_outbox() -> None:
    notebook, node, peer, line = watched()
    line.say(data(1, headers={"id": b"o" * 16 + (7).to_bytes(8, "big")}))
    node.session(peer).take(1)
    [(_, message)] = notebook.take()
    assert message.id == f"{(b'o' * 16).hex()}-7"


# -- connections ------------------------------------------------------------------------------------------------------


def test_connections_come_and_go_in_turn() -> None:
    notebook, peer = Notebook(), Peer()
    node = Node(instrumentation=notebook)
    line = node.connect(peer)
    line.lose()
    node.connect(peer)
    node.connect(peer).say(data(9))
    assert notebook.take() == [
        ("connected", "a", 1), ("disconnected", "a", CloseCode.TIMEOUT),
        ("connected", "a", 2), ("disconnected", "a", CloseCode.SUPERSEDED),
        ("connected", "a", 3), ("disconnected", "a", CloseCode.PROTOCOL),
    ]  # fmt: skip


# -- it can do no harm ------------------------------------------------------------------------------------------------


SECRET = "SECRETsecret"
METHODS = ["accepted", "connected", "disconnected", "outcome", "receiving", "sending", "settled"]


def broken() -> Instrumentation:
    """Raises wherever it is called, with what it was given."""

    def fail(self: Instrumentation, *given: Any) -> None:
        raise KeyError(SECRET, *given)

    kind: type[Instrumentation] = type("Broken", (Instrumentation,), dict.fromkeys(METHODS, fail))
    return kind()


def test_one_that_raises_everywhere_harms_nothing_and_is_told_once_for_each_method() -> None:
    node, peer = Node(instrumentation=broken()), Peer()
    for turn in range(3):
        line = node.connect(peer, first=2 * turn + 1, next=2 * turn + 1)
        one, two = send(node, peer, b"1", headers={"k": SECRET}), send(node, peer, b"2")
        line.say(ack(two, two, first=2 * turn + 1), data(2 * turn + 1, SECRET.encode()), data(2 * turn + 2))
        assert node.session(peer).outcome(one) is Outcome.READ
        delivery, other = node.session(peer).take(2)
        node.session(peer).release(other, node.now)
        node.session(peer).settle(delivery, node.now)
        node.read(peer)
        line.lose()
    ledger = node.session(peer).ledger
    assert (ledger.accepted, ledger.read) == (6, 6)
    told = [log for log in node.logs if log.level == ERROR]
    assert sorted(str(log.arguments[1]) for log in told) == METHODS
    for log in told:
        text = log.text % log.arguments
        assert "with KeyError at " in text
        assert "test_instrumentation.py:" in text
        assert SECRET not in text


@pytest.mark.parametrize(
    "headers",
    [
        {"id": b"reserved"}, {".request": b""}, {"k": object()}, {1: 2}, {f"k{n}": n for n in range(64)},
        {"k": "x" * 5000}, {"k": "x" * 200}, 7, "text", [("k", 1)],
    ],
    ids=str,
)  # fmt: skip
def test_headers_that_cannot_be_sent_are_left_away_and_the_message_goes(headers: Any) -> None:
    class Careless(Notebook):
        def sending(self, peer_id: str, given: Mapping[str, object]) -> Mapping[str, object]:
            result: Mapping[str, object] = headers
            return result

    careless, peer = Careless(), Peer()
    config = Config(limits=Limits(frame=8192, message=200))
    node = Node(config=config, instrumentation=careless)
    node.connect(peer)
    assert send(node, peer, b"x" * 150, headers={"mine": 1}) == 1
    assert b"mine" in node.session(peer).outbox.entry(1).headers
    assert careless.take("accepted") == [("accepted", "a", 1, {"mine": 1})]
    assert send(node, peer, b"y" * 150) == 2
    assert node.session(peer).outbox.entry(2).headers == b""
    assert len([log for log in node.logs if log.level == ERROR]) == 1


def test_what_is_raised_to_end_the_program_is_not_caught() -> None:
    class Stop(Instrumentation):
        def sending(self, peer_id: str, headers: Mapping[str, object]) -> Mapping[str, object]:
            raise KeyboardInterrupt

    node, peer = Node(instrumentation=Stop()), Peer()
    node.connect(peer)
    with pytest.raises(KeyboardInterrupt):
        send(node, peer)
    assert node.session(peer).ledger.accepted == 0


def test_an_error_that_was_raised_nowhere_has_no_place() -> None:
    node = Node()
    node.endpoint.logbook.instrumentation_failed("sending", ValueError())
    node.pump()
    [log] = node.logs
    assert log.text % log.arguments == (
        "node m: the instrumentation failed in sending with ValueError at an unknown place; "
        "its messages go on, this is told once"
    )


CALLS: list[Callable[[Instrumentation], object]] = [
    lambda it: it.accepted("a", 1, {}),
    lambda it: it.outcome("a", 1, Outcome.READ),
    lambda it: it.receiving(HandedOver("a", "x", 1, {}, 0, 1, False)),
    lambda it: it.settled(HandedOver("a", "x", 1, {}, 0, 1, False), "released"),
    lambda it: it.connected("a", ResumeReport(False, 1, False, "A", 0, 0.0)),
    lambda it: it.disconnected("a", ConnectionFailure()),
]


@pytest.mark.parametrize("call", CALLS)
def test_the_base_does_nothing(call: Callable[[Instrumentation], object]) -> None:
    assert call(Instrumentation()) is None


def test_the_base_passes_headers_on() -> None:
    headers: dict[str, object] = {"k": 1}
    assert Instrumentation().sending("a", headers) is headers
