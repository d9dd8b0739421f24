"""picows: WebSocket by callbacks, compiled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from time import monotonic
from typing import Any

from benchmarks import ends

picows: Any = import_module("picows")

_BINARY = picows.WSMsgType.BINARY


class Listener(picows.WSListener):  # type: ignore[misc]  # the base is imported as Any
    """One connection."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.writable = asyncio.Event()
        self.writable.set()

    def on_ws_connected(self, transport: Any) -> None:
        self.transport = transport
        self.end.connections.append(self)
        self.end.accepted.set()

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == _BINARY:
            self.end.arrived(self, frame.get_payload_as_bytes())

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    async def send(self, count: int, payload: bytes) -> None:
        send, writable = self.transport.send, self.writable
        for number in range(count):
            send(_BINARY, payload)
            if not writable.is_set():
                await writable.wait()
            elif not number % 256:
                await asyncio.sleep(0)  # others have their turn


class End(ends.End):
    """All connections of one process."""

    def __init__(self, plan: ends.Plan) -> None:
        super().__init__(plan)
        self.connections: list[Listener] = []
        self.counter = ends.Counter()
        self.accepted = asyncio.Event()
        #: what is called with every message
        self.arrived: Callable[[Listener, bytes], object] = lambda connection, message: self.counter.arrived()
        if plan.settings.get("echo"):  # from the beginning: a callback that came too late would have missed the first
            self.arrived = lambda connection, message: connection.transport.send(_BINARY, message)

    async def listen(self, address: Any) -> int:
        self.server = await picows.ws_create_server(
            lambda request: Listener(self), "127.0.0.1", 0, backlog=4096, websocket_handshake_timeout=60
        )
        return int(self.server.sockets[0].getsockname()[1])

    async def connect(self, address: Any) -> None:
        gate = asyncio.Semaphore(ends.DIALS)

        async def one() -> None:
            async with gate:
                await picows.ws_connect(
                    lambda: Listener(self), f"ws://127.0.0.1:{address}", websocket_handshake_timeout=60
                )

        await asyncio.gather(*(one() for _ in range(self.plan.connections)))

    async def send(self, count: int) -> None:
        await self.accepted.wait()
        parts = zip(self.connections, ends.shares(count, len(self.connections)), strict=True)
        await asyncio.gather(*(connection.send(share, self.plan.payload) for connection, share in parts))

    async def receive(self, count: int) -> None:
        await self.counter.wait_for(count)

    async def ask(self, count: int, seconds: float) -> list[float]:
        payload, send, trips = self.plan.payload, self.connections[0].transport.send, list[float]()
        done = asyncio.Event()
        end = ends.until(seconds)
        before = monotonic()

        def replied(connection: Listener, reply: bytes) -> None:
            nonlocal before
            now = monotonic()
            trips.append(now - before)
            before = now
            if len(trips) < count and now < end:
                send(_BINARY, payload)
            else:
                done.set()

        self.arrived = replied
        send(_BINARY, payload)
        await done.wait()
        return trips

    async def answer(self) -> None:
        """It does already."""
