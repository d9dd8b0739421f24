"""websockets on asyncio."""

from __future__ import annotations

import asyncio
from importlib import import_module
from time import monotonic
from typing import Any

from benchmarks import ends

server: Any = import_module("websockets.asyncio.server")
client: Any = import_module("websockets.asyncio.client")

#: frames that are buffered before reading pauses; with the default of 16 it would all the time
_QUEUE = 4096


class End(ends.End):
    """All connections of one process."""

    def __init__(self, plan: ends.Plan) -> None:
        super().__init__(plan)
        self.connections: list[Any] = []
        self.counter = ends.Counter()
        self.accepted = asyncio.Event()

    async def listen(self, address: Any) -> int:
        self.server = await server.serve(
            self._handle, "127.0.0.1", 0, backlog=4096,
            compression=None, max_size=None, max_queue=_QUEUE, open_timeout=None,
        )
        return int(next(iter(self.server.sockets)).getsockname()[1])

    async def _handle(self, connection: Any) -> None:
        if self.plan.connections == 1:
            self.connections.append(connection)
            self.accepted.set()
            await connection.wait_closed()
            return
        arrived = self.counter.arrived
        async for _ in connection:
            arrived()

    async def connect(self, address: Any) -> None:
        gate = asyncio.Semaphore(ends.DIALS)

        async def one() -> None:
            async with gate:
                connection = await client.connect(
                    f"ws://127.0.0.1:{address}", compression=None, max_size=None, max_queue=_QUEUE, open_timeout=None
                )
            self.connections.append(connection)

        await asyncio.gather(*(one() for _ in range(self.plan.connections)))
        self.accepted.set()

    async def _one(self) -> Any:
        await self.accepted.wait()
        return self.connections[0]

    async def send(self, count: int) -> None:
        await self._one()
        parts = zip(self.connections, ends.shares(count, len(self.connections)), strict=True)
        await asyncio.gather(*(self._send(connection, share) for connection, share in parts))

    async def _send(self, connection: Any, count: int) -> None:
        send, payload = connection.send, self.plan.payload
        for number in range(count):
            await send(payload)
            if not number % 256:
                await asyncio.sleep(0)  # send waits only while the buffer is full

    async def receive(self, count: int) -> None:
        if self.plan.connections > 1:
            await self.counter.wait_for(count)
            return
        recv = (await self._one()).recv
        for _ in range(count):
            await recv()

    async def ask(self, count: int, seconds: float) -> list[float]:
        connection = await self._one()
        send, recv, payload, trips = connection.send, connection.recv, self.plan.payload, list[float]()
        end = ends.until(seconds)
        before = monotonic()
        while len(trips) < count and before < end:
            await send(payload)
            await recv()
            now = monotonic()
            trips.append(now - before)
            before = now
        return trips

    async def answer(self) -> None:
        connection = await self._one()
        async for message in connection:
            await connection.send(message)
