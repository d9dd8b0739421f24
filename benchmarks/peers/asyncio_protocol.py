"""A limit: bare ``asyncio.Protocol``, and a length before each message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

from benchmarks import ends


class Framed(asyncio.Protocol):
    """One connection."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.cutter = ends.Cutter()
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport
        self.end.connections.append(self)

    def data_received(self, data: bytes) -> None:
        for message in self.cutter.cut(data):
            self.end.arrived(self, message)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    async def send(self, count: int, payload: bytes) -> None:
        write, writable = self.transport.write, self.writable
        for number in range(count):
            for part in ends.parts(payload):
                write(part)
            if not writable.is_set():
                await writable.wait()
            elif not number % 256:
                await asyncio.sleep(0)  # others have their turn


class End(ends.End):
    """All connections of one process."""

    def __init__(self, plan: ends.Plan) -> None:
        super().__init__(plan)
        self.connections: list[Framed] = []
        self.counter = ends.Counter()
        #: what is called with every message
        self.arrived: Callable[[Framed, bytes], object] = lambda connection, message: self.counter.arrived()
        if plan.settings.get("echo"):  # from the beginning: a callback that came too late would have missed the first
            self.arrived = lambda connection, message: connection.transport.write(ends.framed(message))

    async def listen(self, address: Any) -> int:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Framed(self), "127.0.0.1", 0, backlog=4096)
        return int(self.server.sockets[0].getsockname()[1])

    async def connect(self, address: Any) -> None:
        loop, gate = asyncio.get_running_loop(), asyncio.Semaphore(ends.DIALS)

        async def one() -> None:
            async with gate:
                await loop.create_connection(lambda: Framed(self), "127.0.0.1", address)

        await asyncio.gather(*(one() for _ in range(self.plan.connections)))

    async def send(self, count: int) -> None:
        parts = zip(self.connections, ends.shares(count, len(self.connections)), strict=True)
        await asyncio.gather(*(connection.send(share, self.plan.payload) for connection, share in parts))

    async def receive(self, count: int) -> None:
        await self.counter.wait_for(count)

    async def ask(self, count: int, seconds: float) -> list[float]:
        message, write, trips = ends.framed(self.plan.payload), self.connections[0].transport.write, list[float]()
        done = asyncio.Event()
        end = ends.until(seconds)
        before = monotonic()

        def replied(connection: Framed, reply: bytes) -> None:
            nonlocal before
            now = monotonic()
            trips.append(now - before)
            before = now
            if len(trips) < count and now < end:
                write(message)
            else:
                done.set()

        self.arrived = replied
        write(message)
        await done.wait()
        return trips

    async def answer(self) -> None:
        """It does already."""
