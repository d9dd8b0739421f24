"""What the tests of the metrics share: two nodes of threads that are connected, quickly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

from networkio_threads import Config, Node, Peer

__all__ = ["HASTY", "Pair", "connected", "until"]

HASTY = Config(ack_delay=0.005, backoff_base=0.02, backoff_max=0.1, retry_quick=0.01, linger=0.2, drain_timeout=0.2)


@dataclass
class Pair:
    """The client's end of the conversation, and the server's."""

    client: Node
    server: Node
    near: Peer
    far: Peer


@contextmanager
def connected(*, client: dict[str, Any] | None = None, server: dict[str, Any] | None = None) -> Iterator[Pair]:
    """A client connected to a server; further arguments of each Node."""
    with (
        Node("server", config=HASTY, **(server or {})) as there,
        Node("client", config=HASTY, **(client or {})) as here,
    ):
        near = here.connect("127.0.0.1", there.listen("127.0.0.1", 0).port, "server")
        far = there.peer("client")
        near.wait_connected(10)
        far.wait_connected(10)
        yield Pair(here, there, near, far)


def until(condition: Any, seconds: float = 10) -> None:
    """Wait for something that nobody tells."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, "it did not happen in time"
        sleep(0.002)
