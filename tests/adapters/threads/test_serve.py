"""`Node.serve` of networkio_threads: a few workers, in order per peer, failures tried again, nobody held up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from networkio_proto import peers
from networkio_threads import ConfigurationError, Message, MessageRejected, Node, NodeClosed
from networkio_threads import Handler as HandlerType
from tests.adapters.threads.helpers import Crew, connected, node, send_all, until


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failing handlers are called again at once."""
    monkeypatch.setattr(peers, "_HANDLER_PAUSE", (0.001, 0.004))


@contextmanager
def served(node: Node, handler: HandlerType, **options: int) -> Iterator[None]:
    """Serve meanwhile; the node is closed at the end."""
    with Crew() as crew:
        crew.start(node.serve, handler, **options)
        yield
        node.close(0)


def test_handlers_of_a_peer_run_in_order_and_one_at_a_time() -> None:
    seen: list[int] = []
    running: list[int] = []

    def handler(message: Message) -> None:
        running.append(1)
        assert len(running) == 1
        seen.append(message.data)
        running.pop()

    with connected() as pair:
        send_all(pair.near, 100)
        with served(pair.server, handler):
            send_all(pair.near, 300)
            assert pair.near.drain(10).read == 400
    assert seen == [*range(100), *range(300)]


def test_a_peer_whose_handler_is_slow_holds_up_nobody_else() -> None:
    release = threading.Event()

    def handler(message: Message) -> None:
        if message.data == "slow":
            release.wait(10)

    with connected() as pair, served(pair.server, handler, workers=2):
        slow = pair.near.send("slow")
        pair.near.send("behind it")
        with node("late") as late:  # a peer that nobody knew when serving began
            peer = late.connect("127.0.0.1", pair.listener.port, "server")
            for number in range(50):
                peer.send(number).read(5)
        assert slow.outcome is None
        release.set()
        slow.read(5)


def test_one_worker_is_fair_to_all_peers() -> None:
    order: list[str] = []
    begin = threading.Event()

    def handler(message: Message) -> None:
        begin.wait(5)
        order.append(message.peer.id)

    with node("server") as there, node("busy") as busy, node("calm") as calm:
        port = there.listen("127.0.0.1", 0).port
        with served(there, handler, workers=1):
            send_all(busy.connect("127.0.0.1", port, "server"), 100)
            until(lambda: there.peer("busy").unread >= 99)
            receipt = calm.connect("127.0.0.1", port, "server").send("me too")
            receipt.received(5)
            begin.set()
            receipt.read(5)
            busy.peer("server").drain(5)
    assert len(order) == 101
    assert order.index("calm") <= 3


def test_a_handler_that_fails_gets_the_message_again_before_any_other(logged: list[str]) -> None:
    seen: list[tuple[int, int]] = []

    def handler(message: Message) -> None:
        seen.append((message.data, message.attempt))
        if message.data == 1 and message.attempt < 4:
            raise [LookupError("not yet"), SystemExit(1), KeyboardInterrupt()][message.attempt - 1]

    with connected() as pair, served(pair.server, handler, workers=1):
        send_all(pair.near, 3)
        pair.near.drain(5)
    assert seen == [(0, 1), (1, 1), (1, 2), (1, 3), (1, 4), (2, 1)]
    assert logged == ["the handler failed on message 2 of client"] * 3
    logged.clear()


def test_after_its_last_attempt_a_message_is_rejected_and_the_next_comes(logged: list[str]) -> None:
    def handler(message: Message) -> None:
        if message.data == "poison":
            raise LookupError("poisoned")

    with connected() as pair, served(pair.server, handler, max_attempts=3):
        poison, fine = pair.near.send("poison"), pair.near.send("fine")
        with pytest.raises(MessageRejected, match="the handler failed 3 times: LookupError"):
            poison.read(5)
        fine.read(5)
    assert len(logged) == 3
    logged.clear()


def test_a_handler_may_settle_its_message_itself_or_in_another_thread(logged: list[str]) -> None:
    def handler(message: Message) -> None:
        if message.data == "reject":
            message.reject("as you wish")
        elif message.data == "elsewhere":
            thread = threading.Thread(target=message.reject, args=("by another thread",))
            thread.start()
            thread.join()
        else:
            message.ack()
            raise LookupError("after the ack")

    with connected() as pair, served(pair.server, handler):
        rejected, elsewhere, acked = [pair.near.send(what) for what in ("reject", "elsewhere", "ack and fail")]
        with pytest.raises(MessageRejected, match="as you wish"):
            rejected.read(5)
        with pytest.raises(MessageRejected, match="by another thread"):
            elsewhere.read(5)
        acked.read(5)
    logged.clear()


class Late(Message):
    """Another thread settles it between a look and the command that follows from it."""

    @property
    def held(self) -> bool:
        if super().held:
            self.reject("faster")
        return True


def test_a_worker_survives_a_message_that_another_thread_settles_at_the_same_moment() -> None:
    with connected() as pair:
        pair.far._message = Late
        with served(pair.server, lambda message: None, workers=1):
            with pytest.raises(MessageRejected, match="faster"):
                pair.near.send("x").read(5)
            pair.far._message = Message
            pair.near.send("y").read(5)


def test_one_handler_serves_all_peers_also_where_two_begin_at_once() -> None:
    refused: list[str] = []

    def serve(there: Node) -> None:
        try:
            there.serve(lambda message: None)
        except ConfigurationError as error:
            refused.append(str(error))

    for _ in range(5):
        refused.clear()
        with node("server") as there, Crew() as crew:
            for _ in range(8):
                crew.start(serve, there)
            until(lambda: len(refused) == 7)
            there.close(0)
        assert all("served already" in words for words in refused)


def test_serving_ends_with_the_node_whenever_that_is() -> None:
    """The end may come between looking whether the node is closed and waiting for it."""
    for _ in range(50):
        with node("server") as there, Crew() as crew:
            serving = threading.Event()

            def serve(there: Node = there, serving: threading.Event = serving) -> None:
                serving.set()
                try:
                    there.serve(lambda message: None, workers=1)
                except NodeClosed:
                    pass

            crew.start(serve)
            serving.wait(5)
            there.close(0)


def test_serving_anew_does_not_overtake_a_handler_of_before() -> None:
    """A handler of the first serving still runs when it is interrupted; its peer has no other one until it is done."""
    release, began = threading.Event(), threading.Event()
    seen: list[str] = []

    def stuck(message: Message) -> None:
        began.set()
        release.wait(10)
        seen.append(f"stuck {message.data}")

    def handler(message: Message) -> None:
        seen.append(f"new {message.data}")

    with connected() as pair, Crew() as crew:
        crew.start(pair.server.serve, stuck)
        pair.near.send(0)
        began.wait(5)
        with pair.server.inside:  # as Ctrl-C in serve() would
            pair.server.end_serving()
        pair.near.send(1)
        until(lambda: pair.far.unread)
        crew.start(pair.server.serve, handler)
        with node("another") as another:
            another.connect("127.0.0.1", pair.listener.port, "server").send("other").read(5)
        assert seen == ["new other"]
        release.set()
        pair.near.drain(5)
        assert seen == ["new other", "stuck 0", "new 1"]
        pair.server.close(0)


def test_a_handler_may_send_request_and_close() -> None:
    def handler(message: Message) -> None:
        if message.data == "close":
            message.peer.node.close(0)
        else:
            message.peer.send(message.peer.request(message.data, 5), 5)

    with connected() as pair, Crew() as crew:
        crew.start(pair.server.serve, handler)
        pair.near.send("ask me")
        with pair.near.receive(5) as question:
            question.reply("answer to " + question.data)
        assert pair.near.read(5) == "answer to ask me"
        pair.near.send("close")
        until(lambda: pair.server.closed)
