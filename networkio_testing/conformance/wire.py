"""An implementation behind a port as a stage: sockets, and the real time.

Theory of operation
-------------------
Every case talks under peer ids of its own, drawn at random, so cases run side by side against one node, and a run
leaves nothing behind that the next one could meet.  :func:`meet` finds out the node's own id, for the ids of testers
have to be less or greater.  A case that needs the application's commands or a virtual clock cannot be played here.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

from .play import Failure, Player
from .script import Case, Step

__all__ = ["SocketStage", "SocketStream", "meet"]


class SocketStream:
    """One TCP connection."""

    def __init__(self, address: tuple[str, int], patience: float) -> None:
        self._patience = patience
        try:
            self._socket = socket.create_connection(address, timeout=patience)
        except OSError as error:
            raise Failure(f"nobody answers at {address[0]}:{address[1]}: {error}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data: bytes) -> None:
        """Send bytes; a peer that is gone does not read them."""
        self._socket.settimeout(self._patience)
        try:
            self._socket.sendall(data)
        except TimeoutError as error:
            raise Failure("the implementation does not read") from error
        except OSError:
            pass

    def read(self, limit: float) -> bytes | None:
        """What comes next.  A reset is the end of the stream too."""
        self._socket.settimeout(max(limit, 0.001))
        try:
            return self._socket.recv(1 << 16)
        except TimeoutError:
            return None
        except OSError:
            return b""

    def shut(self) -> None:
        """No more bytes from here."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def cut(self) -> None:
        """Gone."""
        self._socket.close()


class SocketStage:
    """The node at ``address``, for one case.  ``node_id``: its peer id."""

    def __init__(self, address: tuple[str, int], node_id: str, patience: float) -> None:
        self.patience = patience
        self._address, self._token = address, secrets.token_hex(8)
        self._node_id = node_id
        self._streams: list[SocketStream] = []

    def open(self, role: str) -> SocketStream:
        """Dial the implementation; it dials nobody."""
        if role != "acceptor":
            raise Failure("over sockets the implementation is always the acceptor")
        stream = SocketStream(self._address, self.patience)
        self._streams.append(stream)
        return stream

    def now(self) -> float:
        """The real clock."""
        return time.monotonic()

    def advance(self, seconds: float) -> None:
        """Wait for so long."""
        time.sleep(seconds)

    def peer_id(self, name: str, arbiter: bool) -> str:
        """Greater or less than the node's, and nobody else's."""
        peer_id = f"{'zzzz' if arbiter else '-'}.{self._token}.{name}"
        if (peer_id.encode() > self._node_id.encode()) is not arbiter and self._node_id:
            raise Failure(f"the node's id {self._node_id!r} is not between '-' and 'zzzz'")
        return peer_id

    def command(self, words: list[str], value: Callable[[str], Any], peer_id: str) -> dict[str, Any]:
        """There is no application here that obeys."""
        raise Failure(f"over sockets nobody can be told to {words[0]}")

    def close(self) -> None:
        """The case is over."""
        for stream in self._streams:
            stream.cut()


_GREETING = Case(
    name="greeting", title="A HELLO is answered.", chapter="greeting", covers=(),
    steps=tuple(Step(0, text) for text in ("new connection", "I> PREAMBLE", "I> HELLO", "E< PREAMBLE", "E< HELLO_ACK")),
)  # fmt: skip


def meet(address: tuple[str, int], patience: float) -> str:
    """The peer id of the node at ``address``.  Raises Failure."""
    stage = SocketStage(address, "", patience)
    try:
        player = Player(_GREETING, stage)
        player.run()
        return str(player.names["node"])
    finally:
        stage.close()
