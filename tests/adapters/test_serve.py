"""`Node.serve`: one task per peer, handlers in order, failures released and tried again, rejected at last."""

from __future__ import annotations

import logging

import anyio
import pytest

from networkio_asyncio import ConfigurationError, Message, MessageRejected, MessagesReady, NodeClosed, PeerConnected
from networkio_proto import peers
from tests.adapters.helpers import bounded, connected, node, notice_of, until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Failing handlers are called again at once, and their tracebacks stay out of the way."""
    monkeypatch.setattr(peers, "_HANDLER_PAUSE", (0.001, 0.004))
    caplog.set_level(logging.CRITICAL + 1, "networkio.asyncio")


@bounded(10)
async def test_handlers_of_a_peer_run_in_order_and_one_at_a_time() -> None:
    seen: list[int] = []
    running = 0

    async def handler(message: Message) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await anyio.sleep(0)
        seen.append(message.data)
        running -= 1

    async with connected() as pair, anyio.create_task_group() as tasks:
        for number in range(50):
            await pair.near.send(number)
        tasks.start_soon(pair.server.serve, handler)
        for number in range(50, 100):
            await pair.near.send(number)
        await pair.near.drain()
        tasks.cancel_scope.cancel()
    assert seen == list(range(100))


@bounded(10)
async def test_a_peer_whose_handler_is_slow_does_not_hold_up_the_others() -> None:
    release = anyio.Event()

    async def handler(message: Message) -> None:
        if message.peer.id == "client":
            await release.wait()

    async with connected() as pair, anyio.create_task_group() as tasks:
        tasks.start_soon(pair.server.serve, handler)
        slow = await pair.near.send("slow")
        async with node("late") as late:  # a peer that nobody knew when serving began
            peer = await late.connect("127.0.0.1", pair.listener.port, "server")
            await (await peer.send("quick")).read()
        assert slow.outcome is None
        release.set()
        await slow.read()
        tasks.cancel_scope.cancel()


@bounded(10)
async def test_a_handler_that_fails_gets_the_message_again_before_any_other() -> None:
    seen: list[tuple[int, int]] = []

    async def handler(message: Message) -> None:
        seen.append((message.data, message.attempt))
        if message.data == 1 and message.attempt < 4:
            raise LookupError("not yet")

    async with connected() as pair, anyio.create_task_group() as tasks:
        tasks.start_soon(pair.server.serve, handler)
        for number in range(3):
            await pair.near.send(number)
        await pair.near.drain()
        tasks.cancel_scope.cancel()
    assert seen == [(0, 1), (1, 1), (1, 2), (1, 3), (1, 4), (2, 1)]


@bounded(10)
async def test_after_its_last_attempt_a_message_is_rejected_and_the_next_comes() -> None:
    attempts: list[int] = []

    async def handler(message: Message) -> None:
        if message.data == "poison":
            attempts.append(message.attempt)
            raise LookupError("poisoned")

    async with connected() as pair, anyio.create_task_group() as tasks:

        async def serve() -> None:
            await pair.server.serve(handler, max_attempts=3)

        tasks.start_soon(serve)
        poison, fine = await pair.near.send("poison"), await pair.near.send("fine")
        with pytest.raises(MessageRejected, match="the handler failed 3 times: LookupError"):
            await poison.read()
        await fine.read()
        tasks.cancel_scope.cancel()
    assert attempts == [1, 2, 3]


@bounded(10)
async def test_a_handler_may_settle_its_message_itself() -> None:
    async def handler(message: Message) -> None:
        if message.data == "reject":
            message.reject("as you wish")
        elif message.data == "ack and fail":
            message.ack()
            raise LookupError("after the ack")

    async with connected() as pair, anyio.create_task_group() as tasks:
        tasks.start_soon(pair.server.serve, handler)
        rejected, acked = await pair.near.send("reject"), await pair.near.send("ack and fail")
        with pytest.raises(MessageRejected, match="as you wish"):
            await rejected.read()
        await acked.read()
        tasks.cancel_scope.cancel()


@bounded(10)
async def test_cancelling_gives_back_the_message_in_hand_and_serving_can_begin_again() -> None:
    began = anyio.Event()
    seen: list[tuple[str, int]] = []

    async def stuck(message: Message) -> None:
        began.set()
        await anyio.sleep_forever()

    async def handler(message: Message) -> None:
        seen.append((message.data, message.attempt))

    async with connected() as pair:
        await pair.near.send("x")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.server.serve, stuck)
            await began.wait()
            tasks.cancel_scope.cancel()
        assert pair.far.unread == 1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.server.serve, handler)
            await pair.near.drain()
            tasks.cancel_scope.cancel()
    assert seen == [("x", 2)]


@bounded(10)
async def test_notices_are_still_there_for_who_wants_them() -> None:
    async def handler(message: Message) -> None:
        pass

    async with connected() as pair, anyio.create_task_group() as tasks:
        tasks.start_soon(pair.server.serve, handler)
        assert (await notice_of(pair.server, PeerConnected)).peer is pair.far
        await pair.near.send("x")
        assert (await notice_of(pair.server, MessagesReady)).peer is pair.far
        tasks.cancel_scope.cancel()


@bounded(10)
async def test_one_handler_serves_all_peers() -> None:
    async def handler(message: Message) -> None:
        pass

    async with connected() as pair, anyio.create_task_group() as tasks:
        tasks.start_soon(pair.server.serve, handler)
        await until(lambda: pair.server._served_by)
        with pytest.raises(ConfigurationError, match="served already"):
            await pair.server.serve(handler)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("ended", [False, True])
@bounded(10)
async def test_serving_ends_with_the_node(ended: bool) -> None:
    served: list[str] = []

    async def handler(message: Message) -> None:
        served.append(message.data)

    async with connected() as pair, anyio.create_task_group() as tasks:

        async def serve() -> None:
            await pair.server.serve(handler)
            served.append("returned")

        tasks.start_soon(serve)
        await pair.near.send("x")
        if ended:
            pair.near.end()
        await until(lambda: served)
        await anyio.sleep(0.02)
        await pair.server.aclose(0)
        await until(lambda: len(served) == 2)
        with pytest.raises(NodeClosed):
            await pair.server.serve(handler)
    assert served == ["x", "returned"]


@bounded(10)
async def test_a_peer_that_ended_and_comes_back_is_served_again() -> None:
    served: list[str] = []

    async def handler(message: Message) -> None:
        served.append(message.data)

    async with connected() as pair, anyio.create_task_group() as tasks:
        tasks.start_soon(pair.server.serve, handler)
        await (await pair.near.send("before")).read()
        pair.near.end()
        pair.far.end()
        await until(lambda: not pair.near.connected)
        await pair.client.connect("127.0.0.1", pair.listener.port, "server")
        await (await pair.near.send("after")).read()
        tasks.cancel_scope.cancel()
    assert served == ["before", "after"]
