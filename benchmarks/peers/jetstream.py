"""NATS JetStream, by nats-py: a stream that is a work queue, and a pull consumer with explicit acks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from benchmarks import ends

nats: Any = import_module("nats")
api: Any = import_module("nats.js.api")

_BATCH = 100
_SUBJECT = "benchmark"


def broker(path: str, port: int, directory: str) -> Sequence[str]:
    """The command that starts the server."""
    return [path, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", directory, "-l", f"{directory}/log"]


class End(ends.End):
    """The consumer at the server's end, as many publishers as there are connections at the client's."""

    async def _connected(self, address: Any) -> Any:
        return await nats.connect(f"nats://127.0.0.1:{address}", connect_timeout=10)

    async def listen(self, address: Any) -> Any:
        self.connection = await self._connected(address)
        self.stream = self.connection.jetstream()
        file = self.plan.contender.endswith("file")
        await self.stream.add_stream(
            name=_SUBJECT, subjects=[_SUBJECT], retention=api.RetentionPolicy.WORK_QUEUE,
            storage=api.StorageType.FILE if file else api.StorageType.MEMORY,
        )
        await self._subscribe()
        return address

    async def _subscribe(self) -> None:
        config = api.ConsumerConfig(ack_policy=api.AckPolicy.EXPLICIT, max_ack_pending=-1)
        self.subscription = await self.stream.pull_subscribe(
            _SUBJECT, durable="reader", config=config, pending_msgs_limit=-1, pending_bytes_limit=-1
        )

    async def connect(self, address: Any) -> None:
        self.connections = [await self._connected(address) for _ in range(self.plan.connections)]
        self.streams = [connection.jetstream() for connection in self.connections]

    async def send(self, count: int) -> None:
        """Returns when the broker has acknowledged all."""
        parts = zip(self.streams, ends.shares(count, len(self.streams)), strict=True)
        await asyncio.gather(*(self._send(stream, share) for stream, share in parts))

    async def _send(self, stream: Any, count: int) -> None:
        publish, payload = stream.publish_async, self.plan.payload
        for number in range(count):
            await publish(_SUBJECT, payload)
            if not number % 64:
                await asyncio.sleep(0)  # publishing does not wait by itself, and the acks have to be read
        await stream.publish_async_completed()

    async def receive(self, count: int) -> None:
        """Returns when the broker has got the ack of the last."""
        fetch = self.subscription.fetch
        while count > 0:
            for message in await fetch(min(_BATCH, count), timeout=30):
                await message.ack()
                count -= 1
        await self.connection.flush()

    async def away(self) -> None:
        if self.plan.role == "server":
            await self.subscription.unsubscribe()

    async def hoard(self, count: int) -> None:
        await self.send(count)

    async def back(self, count: int) -> None:
        if self.plan.role == "server":
            await self._subscribe()
            await self.receive(count)
