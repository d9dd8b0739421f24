"""pyzmq with asyncio: as :mod:`.pyzmq_sync`, by ``zmq.asyncio``."""

from __future__ import annotations

from asyncio import gather
from importlib import import_module
from time import monotonic
from typing import Any

from benchmarks import ends
from benchmarks.peers import pyzmq_sync

zmq_asyncio: Any = import_module("zmq.asyncio")


class End(pyzmq_sync.End):
    """The same sockets."""

    def make_context(self) -> Any:
        return zmq_asyncio.Context()

    async def _send(self, sock: Any, count: int) -> None:
        send, payload, copy = sock.send, self.plan.payload, self.copy
        for _ in range(count):
            await send(payload, copy=copy)

    async def send(self, count: int) -> None:
        parts = zip(self.pushes, ends.shares(count, len(self.pushes)), strict=True)
        await gather(*(self._send(sock, share) for sock, share in parts))

    async def receive(self, count: int) -> None:
        recv, copy = self.pull.recv, self.copy
        for _ in range(count):
            await recv(copy=copy)

    async def send_back(self, count: int) -> None:
        await self._send(self.push, count)

    async def receive_back(self, count: int) -> None:
        await self.receive(count)

    async def ask(self, count: int, seconds: float) -> list[float]:
        send, recv, payload, trips = self.req.send, self.req.recv, self.plan.payload, list[float]()
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
        send, recv = self.rep.send, self.rep.recv
        while True:
            await send(await recv())
