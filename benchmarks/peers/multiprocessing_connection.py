"""multiprocessing.connection over TCP."""

from __future__ import annotations

from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from benchmarks import ends


class End(ends.End):
    """One connection."""

    def __init__(self, plan: ends.Plan) -> None:
        super().__init__(plan)
        self._connection: Connection | None = None

    def listen(self, address: Any) -> int:
        self.listener = Listener(("127.0.0.1", 0))
        where: Any = self.listener.address
        return int(where[1])

    def connect(self, address: Any) -> None:
        self._connection = Client(("127.0.0.1", address))

    @property
    def connection(self) -> Connection:
        """Accepted when it is first asked for."""
        if self._connection is None:
            self._connection = self.listener.accept()
        return self._connection

    def send(self, count: int) -> None:
        send, payload = self.connection.send_bytes, self.plan.payload
        for _ in range(count):
            send(payload)

    def receive(self, count: int) -> None:
        recv = self.connection.recv_bytes
        for _ in range(count):
            recv()

    def ask(self, count: int, seconds: float) -> list[float]:
        connection = self.connection
        return ends.round_trips(connection.send_bytes, connection.recv_bytes, self.plan.payload, count, seconds)

    def answer(self) -> None:
        send, recv = self.connection.send_bytes, self.connection.recv_bytes
        while True:
            send(recv())
