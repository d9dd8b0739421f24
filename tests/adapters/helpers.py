"""What the tests of the adapter share: quick settings, connected pairs, a time limit for every test."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

import anyio
import pytest

from networkio_asyncio import Config, Listener, Node, Peer
from networkio_proto import Codec

__all__ = ["HASTY", "WIDE", "Pair", "bounded", "connected", "node", "note_encoding", "notice_of", "read_all", "until"]

P = ParamSpec("P")
Notice = TypeVar("Notice")

#: a node of the tests has no time to lose: it dials again at once and does not wait for those who do not answer
HASTY = Config(
    ack_delay=0.005,
    backoff_base=0.02,
    backoff_max=0.1,
    backoff_slow_max=0.2,
    retry_quick=0.01,
    dial_courtesy=0.05,
    linger=0.2,
    drain_timeout=0.2,
)

#: more than the system ever takes off somebody's hands: up to 4 MiB for the sender, as much and more for the receiver
WIDE: dict[str, Any] = {"window": 1 << 24, "window_max": 1 << 24, "outbox_limit": 1 << 24}


def bounded(seconds: float) -> Callable[[Callable[P, Awaitable[None]]], Callable[P, Awaitable[None]]]:
    """A test that hangs is a test that failed."""

    def limit(test: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
        @functools.wraps(test)
        async def run(*args: P.args, **kwargs: P.kwargs) -> None:
            with anyio.fail_after(seconds):
                await test(*args, **kwargs)

        return run

    return limit


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


@asynccontextmanager
async def connected(*, server: dict[str, Any] | None = None, **changes: Any) -> AsyncIterator[Pair]:
    """A client connected to a server; ``changes`` are settings of both, ``server`` more of the server's."""
    async with node("server", **{**changes, **(server or {})}) as there, node("client", **changes) as here:
        listener = await there.listen("127.0.0.1", 0)
        near = await here.connect("127.0.0.1", listener.port, "server")
        far = there.peer("client")
        await near.wait_connected()
        await far.wait_connected()
        yield Pair(here, there, listener, near, far)


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Wait for something that nobody tells."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.002)


async def notice_of(node: Node, kind: type[Notice], seconds: float = 10) -> Notice:
    """The next notice of a kind; others are dropped."""
    with anyio.fail_after(seconds):
        while not isinstance(notice := await node.next_notice(), kind):
            pass
    return notice


async def read_all(peer: Peer, count: int) -> list[Any]:
    """The data of the next ``count`` messages."""
    return [await peer.read() for _ in range(count)]


def note_encoding(monkeypatch: pytest.MonkeyPatch, codec: Codec) -> list[object]:
    """What this codec is given to encode from now on."""
    encode, encoded = codec.encode, list[object]()

    def noting(data: object) -> bytes:
        encoded.append(data)
        return encode(data)

    monkeypatch.setattr(codec, "encode", noting)
    return encoded
