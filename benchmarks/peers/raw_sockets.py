"""A limit: blocking sockets, and a length before each message."""

from __future__ import annotations

import socket
from time import monotonic
from typing import Any

from benchmarks import ends

_CHUNK = 64 * 1024


class End(ends.End):
    """One connection."""

    def listen(self, address: Any) -> int:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.cutter = ends.Cutter()
        self.socket: socket.socket | None = None
        return int(self.listener.getsockname()[1])

    def connect(self, address: Any) -> None:
        self.cutter = ends.Cutter()
        self.socket = ends.no_delay(socket.create_connection(("127.0.0.1", address)))

    @property
    def connection(self) -> socket.socket:
        """Accepted when it is first asked for."""
        if self.socket is None:
            self.socket = ends.no_delay(self.listener.accept()[0])
        return self.socket

    def send(self, count: int) -> None:
        sendall, payload = self.connection.sendall, self.plan.payload
        for _ in range(count):
            for part in ends.parts(payload):
                sendall(part)

    def receive(self, count: int) -> None:
        if self.plan.size >= _CHUNK:
            self._receive_big(count)
            return
        recv, cut = self.connection.recv, self.cutter.cut
        while count > 0:
            count -= len(cut(recv(_CHUNK)))

    def _receive_big(self, count: int) -> None:
        """Each straight into a buffer of its own."""
        recv_into, head = self.connection.recv_into, bytearray(4)
        for _ in range(count):
            recv_into(head, 4, socket.MSG_WAITALL)
            message = bytearray(int.from_bytes(head, "big"))
            recv_into(message, 0, socket.MSG_WAITALL)

    def ask(self, count: int, seconds: float) -> list[float]:
        sendall, recv, cut, payload = self.connection.sendall, self.connection.recv, self.cutter.cut, self.plan.payload
        trips: list[float] = []
        end = ends.until(seconds)
        before = monotonic()
        while len(trips) < count and before < end:
            sendall(ends.framed(payload))
            while not cut(recv(_CHUNK)):
                pass
            now = monotonic()
            trips.append(now - before)
            before = now
        return trips

    def answer(self) -> None:
        sendall, recv, cut = self.connection.sendall, self.connection.recv, self.cutter.cut
        while data := recv(_CHUNK):
            for message in cut(data):
                sendall(ends.framed(message))
