"""Whatever waits takes ``timeout``, raises TimeoutError with a helpful sentence, and has taken and sent nothing."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from networkio_threads import ConnectionFailure, Outcome, Receipt
from tests.adapters.threads.helpers import Crew, Pair, connected, fill, read_all, send_all, times_out, until


def waiters(pair: Pair) -> int:
    """How much is registered of whoever waits, on both sides."""
    return sum(
        len(peer._waiters) + len(peer.session.receipts) + len(peer.session.requests)
        for node in (pair.client, pair.server)
        for peer in node.peers
    ) + len(pair.client._watchers)


def test_every_wait_ends_in_time_with_a_sentence_and_leaves_no_waiter() -> None:
    with connected() as pair:
        stranger = pair.client.peer("stranger")
        unread = stranger.send("x")
        unacknowledged = pair.near.send("x")
        unacknowledged.received(5)
        pair.far.send("request")
        message = pair.near.receive(5)
        waits: list[tuple[str, Callable[[float], Any]]] = [
            ("nothing came from server", pair.near.receive),
            ("nothing came from server", pair.near.read),
            ("nothing came from server", lambda timeout: pair.near.read_many(5, timeout)),
            ("no connection to stranger", unread.received),
            ("no connection to stranger", unread.read),
            ("the application of server has not acknowledged", unacknowledged.read),
            ("no connection to stranger", stranger.wait_connected),
            ("server did not reply", lambda timeout: pair.near.request("x", timeout)),
            ("stranger did not reply.*no connection to stranger", lambda timeout: stranger.request("x", timeout)),
        ]
        for words, wait in waits:
            with times_out(words) as seconds:
                wait(seconds)
            with times_out(".", 0.0):
                wait(0)
            assert waiters(pair) == 0
        assert pair.client.next_notice(0.0) is not None
        message.ack()
        assert unread.outcome is None
        assert stranger.unacknowledged == 1  # the requests were given up, the message was not
        pair.far.send("y")
        assert pair.near.read(5) == "y"


def test_a_send_that_found_no_room_was_not_sent() -> None:
    with connected(outbox_limit=1000) as pair:
        accepted = fill(pair.near)
        for _ in range(3):
            with times_out("has not acknowledged") as seconds:
                pair.near.send("given up", seconds)
            with times_out("has not acknowledged") as seconds:
                pair.near.request("given up", seconds)
        assert pair.near.ledger.accepted == accepted
        assert waiters(pair) == 0
        with Crew() as crew:
            crew.start(pair.near.send, "not given up")
            assert read_all(pair.far, accepted + 1) == [*range(accepted), "not given up"]


def test_a_reply_that_finds_no_room_in_time_was_not_sent() -> None:
    with connected(outbox_limit=1000) as pair, Crew() as crew:
        answers: list[Any] = []
        crew.start(lambda: answers.append(pair.near.request("question", 10)))
        request = pair.far.receive(5)
        accepted = fill(pair.far)
        with times_out("has not acknowledged") as seconds:
            request.reply("given up", seconds)
        read_all(pair.near, accepted)
        request.reply("an answer", 5)
        request.ack()
        until(lambda: answers)
        assert answers == ["an answer"]


def test_connect_without_an_id_gives_up_in_time_and_dials_no_more() -> None:
    with connected() as pair, socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        with times_out(".") as seconds:
            pair.client.connect("127.0.0.1", dead.getsockname()[1], timeout=seconds)
        assert len(pair.client.endpoint.targets) == 1


def test_a_host_name_that_does_not_resolve_is_told_before_the_time_is_over() -> None:
    with connected() as pair, pytest.raises(ConnectionFailure, match="no-such-host"):
        pair.client.connect("no-such-host.localhost", 1, timeout=10)


def test_closing_is_bounded_whoever_does_not_read() -> None:
    with connected() as pair:
        send_all(pair.near, 100)
        assert pair.client.close(0.05).unread == 100


@pytest.mark.parametrize("way", ["read", "read_many", "receive"])
def test_a_message_that_comes_at_the_moment_of_giving_up_is_not_lost(way: str) -> None:
    draw = random.Random(way)
    got: list[int] = []
    with connected() as pair, Crew() as crew:

        def send() -> None:
            pause = threading.Event()
            for number in range(400):
                pair.near.send(number)
                pause.wait(draw.random() * 0.0005)

        crew.start(send)
        while len(got) < 400:
            try:
                if way == "read":
                    got.append(pair.far.read(draw.random() * 0.0005))
                elif way == "read_many":
                    got.extend(pair.far.read_many(7, draw.random() * 0.0005))
                else:
                    with pair.far.receive(draw.random() * 0.0005) as message:
                        got.append(message.data)
            except TimeoutError:
                pass
        assert got == list(range(400))
        until(lambda: pair.near.ledger.read == 400)
        assert waiters(pair) == 0


def test_a_receipt_that_nobody_waits_for_any_more_goes_on() -> None:
    with connected() as pair:
        receipts: list[Receipt] = [pair.near.send(number) for number in range(50)]
        for receipt in receipts:
            with times_out(".", 0.001):
                receipt.read(0.001)
        read_all(pair.far, 50)
        until(lambda: pair.near.unacknowledged == 0)
        assert {receipt.outcome for receipt in receipts} == {Outcome.READ}
