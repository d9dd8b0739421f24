"""Cancellation at every await of the public interface: nothing is lost, doubled or half done, nobody waits on.

`cancelled_at` runs an operation until it waits for the k-th time and cancels it there, as a `CancelScope` does;
`every_checkpoint` does so for k = 1, 2, ... until the operation no longer gets that far.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import anyio
import pytest

from networkio_asyncio import Message, MessagesReady, Outcome, PeerConnected
from tests.adapters.helpers import Pair, bounded, connected, node, read_all, until

pytestmark = pytest.mark.anyio

NOTHING: Any = object()


class Counted:
    """A coroutine that is cancelled when it waits for the k-th time; anyio's backends see the plain coroutine."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], k: int, cancel: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._left = k
        self._cancel = cancel

    @property
    def reached(self) -> bool:
        return self._left <= 0

    def __await__(self) -> Generator[Any, Any, Any]:
        resume: Callable[[Any], Any] = self._coroutine.send
        value: Any = None
        while True:
            try:
                yielded = resume(value)
            except StopIteration as stop:
                return stop.value
            self._left -= 1
            if self._left == 0:
                self._cancel()
            try:
                value, resume = (yield yielded), self._coroutine.send
            except BaseException as error:
                value, resume = error, self._coroutine.throw


async def cancelled_at(k: int, operation: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[Any, bool]:
    """(what the operation returned or NOTHING if it was cancelled, did it wait k times at all?)."""
    result = NOTHING
    with anyio.CancelScope() as scope:
        counted = Counted(operation(), k, scope.cancel)
        result = await counted
    return result, counted.reached


async def every_checkpoint(operation: Callable[[], Coroutine[Any, Any, Any]]) -> AsyncIterator[Any]:
    """What came of the operation, cancelled at each of its checkpoints in turn and at last not at all."""
    for k in itertools.count(1):
        result, reached = await cancelled_at(k, operation)
        yield result
        if not reached:
            return


def waiters(pair: Pair) -> int:
    """How many waits the nodes know of."""
    peers = [*pair.client.peers, *pair.server.peers]
    return (
        sum(len(peer._waiters) + len(peer.session.receipts) for peer in peers)
        + len(pair.client._watchers)
        + len(pair.server._watchers)
    )


async def cancelled_while_waiting(
    operation: Callable[[], Coroutine[Any, Any, Any]], waiting: Callable[[], bool]
) -> None:
    """Start an operation, wait until it waits, cancel it."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(operation)
        await until(waiting)
        tasks.cancel_scope.cancel()


# -- one wait at a time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what", ["receive", "read", "read_many", "iteration", "received", "receipt", "drain", "wait_connected", "notice"]
)
@bounded(10)
async def test_a_cancelled_wait_leaves_no_waiter_and_takes_nothing(what: str) -> None:
    async with connected() as pair:
        stranger = pair.client.peer("stranger")
        unread = await stranger.send("x")
        while await pair.client.next_notice(0):
            pass
        iterator = aiter(pair.near)
        waits: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "receive": pair.near.receive,
            "read": pair.near.read,
            "read_many": pair.near.read_many,
            "iteration": iterator.__anext__,
            "received": unread.received,
            "receipt": unread.read,
            "drain": stranger.drain,
            "wait_connected": stranger.wait_connected,
            "notice": pair.client.next_notice,
        }
        for _ in range(3):
            await cancelled_while_waiting(waits[what], lambda: waiters(pair) > 0)
            assert waiters(pair) == 0
        assert unread.outcome is None
        await stranger.send("y")  # a drain that was given up takes messages again
        await pair.far.send("z")
        assert await pair.near.read() == "z"
        kinds = {type(notice) for notice in [await pair.client.next_notice(1)]}
        assert kinds == {MessagesReady}


@bounded(10)
async def test_a_send_that_was_cancelled_while_it_waited_was_not_sent() -> None:
    async with connected(outbox_limit=1000) as pair:
        accepted = 0
        while pair.near.session.has_room:
            pair.near.send_nowait(accepted)
            accepted += 1
        for _ in range(3):
            await cancelled_while_waiting(lambda: pair.near.send("cancelled"), lambda: waiters(pair) > 0)
        assert waiters(pair) == 0
        assert pair.near.ledger.accepted == accepted
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pair.near.send, "not cancelled")
            assert await read_all(pair.far, accepted + 1) == [*range(accepted), "not cancelled"]


@bounded(10)
async def test_a_message_that_comes_at_the_moment_of_cancelling_is_not_lost() -> None:
    async with connected() as pair:
        for number in range(30):
            got: list[Any] = []
            with anyio.CancelScope() as scope:
                wake = pair.far.wake

                def wake_and_cancel(wake: Callable[[], None] = wake, scope: anyio.CancelScope = scope) -> None:
                    wake()
                    scope.cancel()

                pair.far.wake = wake_and_cancel  # type: ignore[method-assign]
                await pair.near.send(number)
                got.append(await pair.far.read())
            del pair.far.wake
            if not got:
                got.append(await pair.far.read())
            assert got == [number]
        assert pair.far.unread == 0


@bounded(10)
async def test_the_timeouts_of_asyncio_lose_nothing(anyio_backend: str) -> None:
    if anyio_backend != "asyncio":
        pytest.skip("asyncio's own timeouts need asyncio")
    got: list[Any] = []
    async with connected() as pair, anyio.create_task_group() as tasks:

        async def send() -> None:
            for number in range(200):
                await pair.near.send(number)
                await anyio.sleep(0.0005 * (number % 4))

        tasks.start_soon(send)
        while len(got) < 200:
            try:
                got.append(await asyncio.wait_for(pair.far.read(), 0.0005 * (len(got) % 3)))
            except TimeoutError:
                pass
            try:
                async with asyncio.timeout(0.0002):
                    async for message in pair.far:
                        got.append(message.data)
                        message.ack()
            except TimeoutError:
                pass
    assert got == list(range(200))


# -- at every checkpoint ----------------------------------------------------------------------------------------------


@bounded(30)
async def test_a_sender_may_be_cancelled_anywhere() -> None:
    accepted: list[int] = []
    got: list[Any] = []
    async with connected(outbox_limit=300) as pair, anyio.create_task_group() as tasks:

        async def read() -> None:
            while True:
                got.append(await pair.far.read())

        tasks.start_soon(read)
        numbers = itertools.count()

        async def send() -> bool:
            for number in itertools.islice(numbers, 60):
                await pair.near.send(number)
                accepted.append(number)
            return True

        async for _ in every_checkpoint(send):
            assert pair.near.ledger.accepted == len(accepted)
        await until(lambda: len(got) >= len(accepted))
        tasks.cancel_scope.cancel()
    assert got == accepted
    assert len(accepted) > 200


async def feed(pair: Pair, count: int) -> None:
    for number in range(count):
        await pair.near.send(number)
        await anyio.sleep(0)


@pytest.mark.parametrize("way", ["read", "read_many", "receive", "iteration"])
@bounded(30)
async def test_a_receiver_may_be_cancelled_anywhere(way: str) -> None:
    got: list[Any] = []

    async def take(pair: Pair) -> None:
        if way == "read":
            got.append(await pair.far.read())
        elif way == "read_many":
            got.extend(await pair.far.read_many(7))
        elif way == "receive":
            async with await pair.far.receive() as message:
                await anyio.sleep(0)  # a handler that is cancelled gives its message back
                got.append(message.data)
        else:
            async for message in pair.far:
                await anyio.sleep(0)
                got.append(message.data)
                message.ack()
                if message.data % 5 == 4:
                    break

    async with connected() as pair, anyio.create_task_group() as tasks:
        tasks.start_soon(feed, pair, 400)

        async def some() -> None:
            for _ in range(3):
                if len(got) < 400:
                    await take(pair)

        for k in itertools.cycle(range(1, 12)):
            await cancelled_at(k, some)
            if len(got) >= 400:
                break
            await anyio.sleep(0)
        await until(lambda: pair.near.ledger.read == 400)
        assert waiters(pair) == 0
    assert got == list(range(400))


@bounded(30)
async def test_waiting_for_a_receipt_may_be_cancelled_anywhere() -> None:
    async with connected() as pair:

        async def send_and_wait() -> None:
            receipt = await pair.near.send("x")
            receipts.append(receipt)
            await receipt.received()
            await receipt.read()

        async def read() -> None:
            while True:
                await pair.far.read()

        receipts: list[Any] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            async for _ in every_checkpoint(send_and_wait):
                pass
            await until(lambda: pair.near.unacknowledged == 0)
            tasks.cancel_scope.cancel()
        assert [receipt.outcome for receipt in receipts] == [Outcome.READ] * len(receipts)
        assert waiters(pair) == 0


@bounded(30)
async def test_draining_may_be_cancelled_anywhere() -> None:
    async with connected() as pair, anyio.create_task_group() as tasks:

        async def read() -> None:
            while True:
                await pair.far.read()
                await anyio.sleep(0)

        async def send_and_drain() -> None:
            for number in range(5):
                pair.near.send_nowait(number)
            await pair.near.drain()

        tasks.start_soon(read)
        async for _ in every_checkpoint(send_and_drain):
            pair.near.send_nowait("taken again")
        await until(lambda: pair.near.unacknowledged == 0)
        tasks.cancel_scope.cancel()
    assert pair.near.ledger.read == pair.near.ledger.accepted


@bounded(30)
async def test_connecting_may_be_cancelled_anywhere_and_stops_dialling() -> None:
    async with node("server") as there, node("client") as here:
        listener = await there.listen("127.0.0.1", 0)
        peers = []
        async for peer in every_checkpoint(lambda: here.connect("127.0.0.1", listener.port)):
            peers.append(peer)
            assert len(here.endpoint.targets) == (peer is not NOTHING)
            assert here._watchers == []
        assert peers[-1] is here.peer("server")
        assert peers[0] is NOTHING
        with anyio.move_on_after(0.05):  # where nobody answers it goes on for ever
            await here.connect("127.0.0.1", 1)
        assert len(here.endpoint.targets) == 1
        await here.peer("server").send("x")
        assert await there.peer("client").read() == "x"


@bounded(30)
async def test_listening_may_be_cancelled_anywhere() -> None:
    async with node("server") as there:
        made = [listener async for listener in every_checkpoint(lambda: there.listen("localhost", 0))]
        assert there._listeners == [listener for listener in made if listener is not NOTHING]


@bounded(30)
async def test_waiting_for_notices_may_be_cancelled_anywhere() -> None:
    async with node("server") as there, anyio.create_task_group() as tasks:
        listener = await there.listen("127.0.0.1", 0)
        taken: list[Any] = []

        async def watch() -> None:
            while True:
                taken.append(await there.next_notice(0.05))

        async def come() -> None:
            for number in range(15):
                stream = await anyio.connect_tcp("127.0.0.1", listener.port)  # somebody who only knocks
                await stream.aclose()
                async with node(f"client-{number}") as here:
                    peer = await here.connect("127.0.0.1", listener.port, "server")
                    await (await peer.send(number)).received()

        tasks.start_soon(come)

        def seen(kind: type[Any]) -> list[str]:
            return [notice.peer.id for notice in taken if type(notice) is kind]

        for k in itertools.cycle(range(1, 10)):
            await cancelled_at(k, watch)
            if len(seen(MessagesReady)) >= 15:
                break
        everybody = sorted(f"client-{number}" for number in range(15))
        assert sorted(seen(MessagesReady)) == everybody
        assert set(seen(PeerConnected)) <= set(everybody)
        assert there._watchers == []


@bounded(30)
async def test_closing_may_be_cancelled_anywhere_and_closes_at_once() -> None:
    async with node("server") as there:
        listener = await there.listen("127.0.0.1", 0)
        far = there.peer("client")
        for k in itertools.count(1):
            async with node("client", linger=60, drain_timeout=60) as here:
                peer = await here.connect("127.0.0.1", listener.port, "server")
                await peer.send(k)
                assert await far.read() == k
                if k == 1:
                    await (await peer.send("it waits for this to be read")).received()
                _, reached = await cancelled_at(k, here.aclose)
                assert here.closed
                assert not here.endpoint.connections
                with anyio.fail_after(5):
                    while here._links:
                        await here.run(here.changing())
            if k == 1:
                await far.read()
            if not reached:
                break


# -- a whole life, cancelled anywhere ---------------------------------------------------------------------------------


@bounded(60)
async def test_a_whole_life_may_be_cancelled_anywhere_and_leaves_nothing() -> None:
    """What is left behind (tasks, descriptors, warnings) is judged by the fixture of every test."""
    async with node("server") as there, anyio.create_task_group() as tasks:
        listener = await there.listen("127.0.0.1", 0)

        async def echo(message: Message) -> None:
            await message.peer.send(message.data)

        tasks.start_soon(there.serve, echo)

        async def life() -> str:
            async with node("client", drain_timeout=0.05) as here:
                await here.listen("127.0.0.1", 0)
                peer = await here.connect("127.0.0.1", listener.port)
                receipts = [await peer.send(number) for number in range(3)]
                await receipts[0].received()
                await receipts[2].read()
                assert await read_all(peer, 3) == [0, 1, 2]
                await peer.drain()
                await here.next_notice(0.001)
            return "done"

        results = [result async for result in every_checkpoint(life)]
        assert results[-1] == "done"
        assert len(results) > 5
        await until(lambda: not there._links)
        tasks.cancel_scope.cancel()


@bounded(30)
async def test_leaving_a_node_may_be_cancelled_by_its_own_block() -> None:
    with anyio.CancelScope() as scope:
        async with node("client") as here:
            scope.cancel()
            await here.connect("127.0.0.1", 1)
    assert scope.cancelled_caught
    assert here.closed
