"""The blocking face of a node and its peers: calls wait by ``run``, each for its timeout; a node's life."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from networkio_proto import (
    Config,
    ConfigurationError,
    Ledger,
    MessageRejected,
    NodeClosed,
    NoMoreMessages,
    PeerConnected,
    WrongThread,
)
from networkio_proto.blocking import BlockingNode
from networkio_proto.operations import Operation
from networkio_testing.node import SimulatedIterator, SimulatedMessage, SimulatedReceipt
from tests.proto.helpers import Moody, Two, two

# -- peers, messages, receipts ----------------------------------------------------------------------------------------


def test_sending_receiving_and_settling() -> None:
    pair = two()
    receipt = pair.to_b.send({"n": 1}, headers={"k": 1}, ttl=60.0)
    message = pair.to_a.receive(1.0)
    assert (type(receipt), type(message), message.peer) == (SimulatedReceipt, SimulatedMessage, pair.to_a)
    assert (message.data, message.headers) == ({"n": 1}, {"k": 1})
    receipt.received(1.0)
    with message as same:
        assert same is message
    receipt.read(1.0)
    refused = pair.to_b.send(b"raw", raw=True)
    with pytest.raises(ZeroDivisionError), pair.to_a.receive(1.0):
        _ = 1 // 0
    again = pair.to_a.receive(0)
    assert (again.data, again.attempt) == (b"raw", 2)
    again.reject("no")
    for waiting in (refused.received, refused.read):
        with pytest.raises(MessageRejected, match="no"):
            waiting(1.0)


def test_a_message_that_waits_for_room_is_encoded_once() -> None:
    pair = two(Config(outbox_limit=1))
    pair.b.serve(lambda message: message.ack())
    codec = pair.a.codec = Moody()
    for count in range(1, 4):
        pair.to_b.send("x", 5.0)
        assert codec.encoded == count
    assert pair.to_b.ledger.accepted == 3


def test_many_at_once() -> None:
    pair = two()
    assert [receipt.sequence for receipt in pair.to_b.send_many([1, 2, 3], 1.0)] == [1, 2, 3]
    assert pair.to_a.read(1.0) == 1
    pair.world.run(1.0)
    assert pair.to_a.read_many(1, 1.0) == [2]
    assert pair.to_a.read_many(5, 1.0) == [3]
    assert len(pair.to_b.send_many([4, 5], headers={"k": 1}, raw=False)) == 2
    assert pair.to_a.read_many() == [4, 5]


def test_requests_are_replied_to() -> None:
    pair = two()
    pair.b.serve(lambda message: message.reply(message.data + 1, 1.0, headers={"k": 1}))
    assert pair.to_b.request(41, 5.0) == 42


def test_what_nobody_has_seen_can_be_cancelled() -> None:
    pair = two(connected=False)
    receipt = pair.to_b.send(1)
    assert receipt.cancel()
    assert not receipt.cancel()


def test_iterating_ends_with_the_peer() -> None:
    pair = two()
    pair.to_b.send_many([1, 2])
    pair.to_b.end()
    messages = iter(pair.to_a)
    assert type(messages) is SimulatedIterator
    assert iter(messages) is messages
    assert [message.data for message in messages] == [1, 2]
    with pytest.raises(NoMoreMessages):
        pair.to_a.receive()
    assert pair.to_b.drain(5.0).read == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda pair: pair.to_b.send(1, 2.5),
        lambda pair: pair.to_b.request(1, 2.5),
        lambda pair: pair.to_b.receive(2.5),
        lambda pair: pair.to_b.read(2.5),
        lambda pair: pair.to_b.read_many(timeout=2.5),
        lambda pair: pair.to_b.wait_connected(2.5),
        lambda pair: pair.to_b.receipt(1).received(2.5),
        lambda pair: pair.to_b.receipt(1).read(2.5),
    ],
)  # fmt: skip
def test_whatever_waits_does_so_for_its_timeout(call: Callable[[Two], object]) -> None:
    pair = two(Config(outbox_limit=1), connected=False)
    pair.to_b.send(0)
    before = pair.world.now
    with pytest.raises(TimeoutError, match=r"not within 2\.5 s"):
        call(pair)
    assert pair.world.now == before + 2.5
    assert pair.left() == []


def test_draining_and_sending_many_end_in_time_with_what_they_have() -> None:
    pair = two(Config(outbox_limit=1), connected=False)
    before = pair.world.now
    assert len(pair.to_b.send_many([1, 2], 2.5)) == 1
    assert pair.to_b.drain(2.5).unread == pair.a.drain(2.5).unread == 1
    assert pair.world.now == before + 7.5


def test_transactions_wait_for_their_timeout_and_there_is_none_without_a_journal() -> None:
    pair = two()
    pair.to_b.send(1)
    message = pair.to_a.receive(1.0)
    with pytest.raises(ConfigurationError, match="node b has no journal"):
        message.commit(lambda db: db, 2.5)
    with pytest.raises(ConfigurationError, match="node b has no journal"):
        pair.b.transaction(lambda db, send: db, 2.5, messages=[message])
    pair.b.commit = lambda *called: called  # type: ignore[assignment, method-assign]
    called: Any = message.commit(lambda db: None, 2.5)
    assert (called[0], called[2]) == ([message], 2.5)


# -- a node -----------------------------------------------------------------------------------------------------------


def test_notices_are_taken_one_by_one_until_the_end() -> None:
    pair = two(connected=False)
    assert pair.a.next_notice(1.0) is None
    pair.a.connect("b", "b")
    notices = pair.a.notifications()
    assert isinstance(next(notices), PeerConnected)
    pair.a.host.call_at(pair.world.now + 5.0, lambda: pair.a.close(0))
    list(notices)
    assert pair.a.closed
    with pytest.raises(NodeClosed):
        pair.a.next_notice()


class Life(BlockingNode[Any]):
    """Notes what becomes of it; nothing is ever waited for."""

    waits = True
    lives = True
    broken = False

    def prepare(self) -> None:
        self.told: list[object] = []

    def enter(self) -> float:
        return self.arrive(1.0)

    def leave(self) -> None:
        pass

    def run(self, operation: Operation[Any], timeout: float | None = None) -> Any:
        self.told.append(timeout)
        operation.close()

    def start(self) -> None:
        super().start()
        if self.broken:
            raise OSError("no sockets left")
        self.told.append("start")

    def stop(self) -> None:
        self.told.append("stop")
        self.gone()

    def check_waiting(self) -> None:
        super().check_waiting()
        if not self.waits:
            raise WrongThread("not here")

    @property
    def alive(self) -> bool:
        return super().alive and self.lives


def test_a_block_opens_a_node_and_waits_at_its_end_for_what_is_unread() -> None:
    with Life("n", config=Config(drain_timeout=7.0)) as node:
        assert (node.told, node.closed) == (["start"], False)
    assert (node.told, node.closed) == (["start", 7.0, "stop"], True)
    assert node.close() == Ledger()
    assert node.told == ["start", 7.0, "stop", "stop"]  # it is not waited for twice
    with pytest.raises(NodeClosed, match="used before"), node:
        raise AssertionError("it was opened again")


def test_a_block_that_fails_waits_for_nothing() -> None:
    node = Life("n")
    with pytest.raises(ZeroDivisionError), node:
        _ = 1 // 0
    assert node.told == ["start", 0, "stop"]


def test_a_dead_process_is_not_closed() -> None:
    with Life("n") as node:
        node.lives = False
    assert (node.told, node.closed) == (["start"], False)


def test_closing_waits_as_long_as_it_is_told_and_not_where_nothing_may_wait() -> None:
    node = Life("n")
    node.waits = False
    with pytest.raises(WrongThread):
        node.close(3.0)
    assert not node.closed
    node.waits = True
    node.close(3.0)
    assert node.told == [3.0, "stop"]


def test_a_node_that_could_not_be_opened_is_closed() -> None:
    node = Life("n")
    node.broken = True
    with pytest.raises(OSError, match="no sockets left"), node:
        raise AssertionError("it was opened")
    assert node.closed


def test_how_it_runs_and_stops_is_the_drivers() -> None:
    node = BlockingNode[Any]("n")
    with pytest.raises(NotImplementedError):
        node.run(node.ending())
    with pytest.raises(NotImplementedError):
        node.stop()
