"""websockets with threads."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

from benchmarks import ends

server: Any = import_module("websockets.sync.server")
client: Any = import_module("websockets.sync.client")

#: frames that are buffered before reading pauses; with the default of 16 it would all the time
_QUEUE = 4096


class End(ends.End):
    """One connection."""

    def listen(self, address: Any) -> int:
        self.accepted = threading.Event()
        self.over = threading.Event()
        self.server = server.serve(self._handle, "127.0.0.1", 0, compression=None, max_size=None, max_queue=_QUEUE)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return int(self.server.socket.getsockname()[1])

    def _handle(self, connection: Any) -> None:
        self._connection = connection
        self.accepted.set()
        self.over.wait()

    def connect(self, address: Any) -> None:
        self.accepted = threading.Event()
        self._connection = client.connect(
            f"ws://127.0.0.1:{address}", compression=None, max_size=None, max_queue=_QUEUE
        )
        self.accepted.set()

    @property
    def connection(self) -> Any:
        """The one; accepted in a thread of the server's."""
        self.accepted.wait()
        return self._connection

    def send(self, count: int) -> None:
        send, payload = self.connection.send, self.plan.payload
        for _ in range(count):
            send(payload)

    def receive(self, count: int) -> None:
        recv = self.connection.recv
        for _ in range(count):
            recv()

    def ask(self, count: int, seconds: float) -> list[float]:
        return ends.round_trips(self.connection.send, self.connection.recv, self.plan.payload, count, seconds)

    def answer(self) -> None:
        connection = self.connection
        for message in connection:
            connection.send(message)
