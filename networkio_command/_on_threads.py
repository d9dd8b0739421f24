"""The bridge to ``networkio_threads``: it blocks by itself, so there is hardly anything to bridge.

What returns a Future here runs in a daemon thread, which ends at the latest with the node; cancelling the Future is to
stop looking at it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeVar

import networkio_threads
from networkio_proto.handles import MessageHandle
from networkio_threads import (
    ConnectionFailure,
    EncodeError,
    Event,
    Failure,
    Ledger,
    MessageTooLarge,
    OutboxFull,
)

from . import _bridge

__all__ = ["threads_node"]

T = TypeVar("T")


def _begin(function: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:
            if not future.cancelled():
                future.set_exception(error)
        else:
            if not future.cancelled():
                future.set_result(result)

    threading.Thread(target=run, name="networkio wait", daemon=True).start()
    return future


class _Peer(_bridge.PeerFacts):
    def __init__(self, peer: networkio_threads.Peer) -> None:
        self._peer = peer
        super().__init__(peer)

    @property
    def ledger(self) -> Ledger:
        return self._peer.ledger

    def why(self) -> str:
        return self._peer.why()

    def failures(self) -> list[Failure]:
        return self._peer.failures()

    def send_some(self, items: Sequence[object], *, raw: bool, timeout: float) -> tuple[int, _bridge.Receipt | None]:
        try:
            receipt = self._peer.send(items[0], timeout, raw=raw)
        except TimeoutError:
            return 0, None
        count = 1
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
        return _begin(lambda: self._peer.node.transaction(accept))

    def commit(
        self, messages: Sequence[MessageHandle], rejected: Mapping[int, str], note: Callable[[Any], None]
    ) -> Future[None]:
        def commit() -> None:
            acknowledged = [message for place, message in enumerate(messages) if place not in rejected]
            self._peer.node.commit(acknowledged, note)
            with self._peer.node.inside as now:
                for place, reason in rejected.items():
                    messages[place].finish("rejected", now, (0, reason))

        return _begin(commit)

    def receive_some(self, limit: int, size: int) -> list[MessageHandle]:
        taken: list[MessageHandle] = []
        with self._peer.node.inside:
            while len(taken) < limit and size > 0 and (message := self._peer.take_or_none()) is not None:
                taken.append(message)
                size -= len(message.raw)
        return taken

    def settle(self, messages: Sequence[MessageHandle], rejected: Mapping[int, str]) -> None:
        with self._peer.node.inside as now:
            for place, message in enumerate(messages):
                if place in rejected:
                    message.finish("rejected", now, (0, rejected[place]))
                else:
                    message.finish("acknowledged", now)

    def round_trip(self, data: object, headers: Mapping[str, object], timeout: float) -> Future[float]:
        def measure() -> float:
            began = perf_counter()
            self._peer.send(data, timeout, headers=headers, ttl=timeout).read(timeout)
            return perf_counter() - began

        return _begin(measure)

    def end(self) -> None:
        self._peer.end()


class _Node:
    def __init__(self, node: networkio_threads.Node) -> None:
        self._node = node
        self._peers: dict[str, _Peer] = {}
        self.id = node.id

    def listen(self, host: str, port: int) -> int:
        return self._node.listen(host, port).port

    def connect(self, host: str, port: int, peer_id: str | None) -> Future[_bridge.Peer]:
        return _begin(lambda: self._known(self._node.connect(host, port, peer_id)))

    def dial_error(self) -> ConnectionFailure | None:
        with self._node.inside:
            return next((target.error for target in self._node.endpoint.targets if target.error is not None), None)

    def peer(self, peer_id: str) -> _Peer:
        return self._known(self._node.peer(peer_id))

    def record(self, function: Callable[[Any], T]) -> Future[T]:
        return _begin(lambda: self._node.commit([], function))

    def next_notice(self, timeout: float) -> Event | None:
        notice = self._node.next_notice(timeout)
        return None if notice is None else _bridge.of_peer(notice, self._known(notice.peer))

    def close(self, timeout: float) -> Ledger:
        return self._node.close(timeout)

    def _known(self, peer: networkio_threads.Peer) -> _Peer:
        return self._peers.setdefault(peer.id, _Peer(peer))


@contextmanager
def threads_node(peer_id: str, options: Mapping[str, Any]) -> Iterator[_bridge.Node]:
    """A node for the length of a block; when it ends what it still waits for is given up."""
    with networkio_threads.Node(peer_id, **options) as node:
        try:
            yield _Node(node)
        finally:
            node.close(0)
