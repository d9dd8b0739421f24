"""The bridge to ``networkio_asyncio``: its event loop runs in a thread of its own, each call is one crossing.

What waits goes through anyio's portal, as a task of its own.  What does not is only called by the loop, which takes a
fifth of the time; a listener does that twice for each batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeVar, cast

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

import networkio_asyncio
from networkio_asyncio import (
    ConnectionFailure,
    EncodeError,
    Event,
    Failure,
    Ledger,
    MessageTooLarge,
    NoMoreMessages,
    OutboxFull,
)
from networkio_proto.handles import MessageHandle

from . import _bridge

__all__ = ["asyncio_node"]

T = TypeVar("T")


class _Crossing:
    """The way into the loop's thread, and back with what came of it."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._loop = portal.call(asyncio.get_running_loop)
        #: begin an async function; its Future can be cancelled
        self.begin = portal.start_task_soon
        #: wait for an async function
        self.wait = portal.call

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """The result of a function that does not wait."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function(*arguments))
            except Exception as error:
                future.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return future.result()


class _Receipt:
    def __init__(self, crossing: _Crossing, receipt: networkio_asyncio.Receipt) -> None:
        self._crossing = crossing
        self._receipt = receipt

    @property
    def sequence(self) -> int:
        return self._receipt.sequence

    def received(self, timeout: float) -> None:
        self._crossing.wait(_within, timeout, self._receipt.received)

    def read(self, timeout: float) -> None:
        self._crossing.wait(_within, timeout, self._receipt.read)


async def _within(timeout: float, wait: Callable[[], Any]) -> None:
    with anyio.fail_after(timeout):
        await wait()


class _Peer(_bridge.PeerFacts):
    def __init__(self, crossing: _Crossing, peer: networkio_asyncio.Peer) -> None:
        self._crossing = crossing
        self._peer = peer
        super().__init__(peer)

    @property
    def ledger(self) -> Ledger:
        return self._crossing.call(lambda: self._peer.ledger)

    def why(self) -> str:
        return self._crossing.call(self._peer.why)

    def failures(self) -> list[Failure]:
        return self._crossing.call(self._peer.failures)

    def send_some(self, items: Sequence[object], *, raw: bool, timeout: float) -> tuple[int, _bridge.Receipt | None]:
        count, receipt = self._crossing.wait(self._send_some, items, raw, timeout)
        return count, None if receipt is None else _Receipt(self._crossing, receipt)

    async def _send_some(
        self, items: Sequence[object], raw: bool, timeout: float
    ) -> tuple[int, networkio_asyncio.Receipt | None]:
        count, receipt = 0, None
        with anyio.move_on_after(timeout):
            receipt = await self._peer.send(items[0], raw=raw)
            count = 1
        if count:
            for item in items[1:]:
                try:
                    receipt = self._peer.send_nowait(item, raw=raw)
                except (OutboxFull, EncodeError, MessageTooLarge):  # of the two errors the next call tells
                    break
                count += 1
        return count, receipt

    def send_all(
        self, items: Sequence[object], note: Callable[[Any, int], None], *, raw: bool
    ) -> Future[tuple[int, _bridge.Receipt]]:
        accept = _bridge.accepting(self.id, items, note, raw)

        async def send() -> tuple[int, _bridge.Receipt]:
            count, receipt = await self._peer.node.transaction(accept)
            return count, _Receipt(self._crossing, receipt)

        return self._crossing.begin(send)

    def commit(
        self, messages: Sequence[MessageHandle], rejected: Mapping[int, str], note: Callable[[Any], None]
    ) -> Future[None]:
        return self._crossing.begin(self._commit, cast(Sequence[networkio_asyncio.Message], messages), rejected, note)

    async def _commit(
        self, messages: Sequence[networkio_asyncio.Message], rejected: Mapping[int, str], note: Callable[[Any], None]
    ) -> None:
        await self._peer.node.commit([m for place, m in enumerate(messages) if place not in rejected], note)
        for place, reason in rejected.items():
            messages[place].reject(reason)

    def receive_some(self, limit: int, size: int) -> list[MessageHandle]:
        return self._crossing.call(self._receive_some, limit, size)

    def _receive_some(self, limit: int, size: int) -> list[MessageHandle]:
        taken: list[MessageHandle] = []
        try:
            while len(taken) < limit and size > 0 and (message := self._peer.receive_nowait(None)) is not None:
                taken.append(message)
                size -= len(message.raw)
        except NoMoreMessages:
            pass
        return taken

    def settle(self, messages: Sequence[MessageHandle], rejected: Mapping[int, str]) -> None:
        self._crossing.call(self._settle, cast(Sequence[networkio_asyncio.Message], messages), rejected)

    def _settle(self, messages: Sequence[networkio_asyncio.Message], rejected: Mapping[int, str]) -> None:
        for place, message in enumerate(messages):
            if place in rejected:
                message.reject(rejected[place])
            else:
                message.ack()

    def round_trip(self, data: object, headers: Mapping[str, object], timeout: float) -> Future[float]:
        return self._crossing.begin(self._round_trip, data, headers, timeout)

    async def _round_trip(self, data: object, headers: Mapping[str, object], timeout: float) -> float:
        began = perf_counter()
        with anyio.fail_after(timeout):
            receipt = await self._peer.send(data, headers=headers, ttl=timeout)
            await receipt.read()
        return perf_counter() - began

    def end(self) -> None:
        self._crossing.call(self._peer.end)


class _Node:
    def __init__(self, crossing: _Crossing, node: networkio_asyncio.Node) -> None:
        self._crossing = crossing
        self._node = node
        self._peers: dict[str, _Peer] = {}
        self.id = node.id

    def listen(self, host: str, port: int) -> int:
        return self._crossing.wait(self._node.listen, host, port).port

    def connect(self, host: str, port: int, peer_id: str | None) -> Future[_bridge.Peer]:
        async def connect() -> _bridge.Peer:
            return self._known(await self._node.connect(host, port, peer_id))

        return self._crossing.begin(connect)

    def dial_error(self) -> ConnectionFailure | None:
        return self._crossing.call(self._dial_error)

    def _dial_error(self) -> ConnectionFailure | None:
        return next((target.error for target in self._node.endpoint.targets if target.error is not None), None)

    def peer(self, peer_id: str) -> _Peer:
        return self._known(self._crossing.call(self._node.peer, peer_id))

    def record(self, function: Callable[[Any], T]) -> Future[T]:
        async def record() -> T:
            return await self._node.commit([], function)

        return self._crossing.begin(record)

    def next_notice(self, timeout: float) -> Event | None:
        notice = self._crossing.wait(self._node.next_notice, timeout)
        return None if notice is None else _bridge.of_peer(notice, self._known(notice.peer))

    def close(self, timeout: float) -> Ledger:
        return self._crossing.wait(self._node.aclose, timeout)

    def _known(self, peer: networkio_asyncio.Peer) -> _Peer:
        return self._peers.setdefault(peer.id, _Peer(self._crossing, peer))


@contextmanager
def asyncio_node(peer_id: str, options: Mapping[str, Any]) -> Iterator[_bridge.Node]:
    """A node in a thread of its own; when the block ends what it still waits for is given up."""
    node = networkio_asyncio.Node(peer_id, **options)  # before the thread: its complaints need none
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(node):
        try:
            yield _Node(_Crossing(portal), node)
        finally:
            portal.call(node.aclose, 0)
