"""What the tests of networkio_threads share: connected pairs, threads whose errors come out, and waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest

from networkio_threads import Listener, Node, Peer
from tests.adapters.helpers import HASTY

__all__ = ["Crew", "Pair", "connected", "fill", "node", "notice_of", "read_all", "send_all", "times_out", "until"]

Notice = TypeVar("Notice")


def node(peer_id: str, **changes: Any) -> Node:
    """A hasty node; ``changes`` are settings of its Config."""
    return Node(peer_id, config=replace(HASTY, **changes))


@dataclass
class Pair:
    """Two nodes that know each other, and each one's Peer for the other."""

    client: Node
    server: Node
    listener: Listener
    #: the client's end of the conversation, and the server's
    near: Peer
    far: Peer


@contextmanager
def connected(*, server: dict[str, Any] | None = None, **changes: Any) -> Iterator[Pair]:
    """A client connected to a server; ``changes`` are settings of both, ``server`` more of the server's."""
    with node("server", **{**changes, **(server or {})}) as there, node("client", **changes) as here:
        listener = there.listen("127.0.0.1", 0)
        near = here.connect("127.0.0.1", listener.port, "server")
        far = there.peer("client")
        near.wait_connected(5)
        far.wait_connected(5)
        yield Pair(here, there, listener, near, far)


class Crew:
    """Threads of a test: leaving the block waits for them all, and raises what the first of them raised."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, call: Callable[..., object], *args: Any, **options: Any) -> threading.Thread:
        def run() -> None:
            try:
                call(*args, **options)
            except BaseException as error:
                self._errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        deadline = time.monotonic() + 30
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not [thread for thread in self._threads if thread.is_alive()] or self._errors
        for failed in self._errors:
            raise failed


def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait for something that nobody tells."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def notice_of(node: Node, kind: type[Notice], seconds: float = 10) -> Notice:
    """The next notice of a kind; others are dropped."""
    deadline = time.monotonic() + seconds
    while not isinstance(notice := node.next_notice(deadline - time.monotonic()), kind):
        assert notice is not None, f"there was no {kind.__name__}"
    return notice


def read_all(peer: Peer, count: int) -> list[Any]:
    """The data of the next ``count`` messages."""
    return [peer.read(10) for _ in range(count)]


def send_all(peer: Peer, count: int) -> None:
    """Numbers from 0."""
    for number in range(count):
        peer.send(number, 10)


def fill(peer: Peer) -> int:
    """Send numbers from 0 until there is no room; how many."""
    count = 0
    while peer.session.has_room:
        peer.send_nowait(count)
        count += 1
    return count


@contextmanager
def times_out(words: str, seconds: float = 0.05) -> Iterator[float]:
    """A call with this timeout raises TimeoutError with these words, neither much too early nor much too late."""
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=words) as caught:
        yield seconds
    assert seconds * 0.9 <= time.monotonic() - began < seconds + 2
    assert f"not within {seconds:g} s" in str(caught.value)
