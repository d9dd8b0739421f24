"""grpcio: ``grpc.aio``, a bidirectional stream of plain bytes, as its documentation advises for streams in Python."""

from __future__ import annotations

import asyncio
from importlib import import_module
from time import monotonic
from typing import Any

from benchmarks import ends

grpc: Any = import_module("grpc")
aio: Any = import_module("grpc.aio")

_OPTIONS = [
    ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # channels do not share a connection
]


class End(ends.End):
    """A server, or as many channels as there are connections; one stream on each."""

    def __init__(self, plan: ends.Plan) -> None:
        super().__init__(plan)
        self.streams: list[Any] = []
        self.counter = ends.Counter()
        self.accepted = asyncio.Event()

    async def listen(self, address: Any) -> int:
        self.server = aio.server(options=_OPTIONS)
        talk = grpc.stream_stream_rpc_method_handler(self._talk)
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("benchmark", {"Talk": talk})])
        port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        return int(port)

    async def _talk(self, requests: Any, context: Any) -> None:
        self.streams.append(context)
        self.accepted.set()
        if self.plan.connections == 1:
            await asyncio.Event().wait()
        arrived, read = self.counter.arrived, context.read
        while await read() is not aio.EOF:
            arrived()

    async def connect(self, address: Any) -> None:
        self.channels = [
            aio.insecure_channel(f"127.0.0.1:{address}", options=_OPTIONS) for _ in range(self.plan.connections)
        ]
        for channel in self.channels:
            await channel.channel_ready()
            stream = channel.stream_stream("/benchmark/Talk")()
            await stream.wait_for_connection()
            self.streams.append(stream)
        self.accepted.set()

    async def send(self, count: int) -> None:
        await self.accepted.wait()
        parts = zip(self.streams, ends.shares(count, len(self.streams)), strict=True)
        await asyncio.gather(*(self._send(stream, share) for stream, share in parts))

    async def _send(self, stream: Any, count: int) -> None:
        write, payload = stream.write, self.plan.payload
        for _ in range(count):
            await write(payload)

    async def receive(self, count: int) -> None:
        if self.plan.connections > 1:
            await self.counter.wait_for(count)
            return
        await self.accepted.wait()
        read = self.streams[0].read
        for _ in range(count):
            await read()

    async def ask(self, count: int, seconds: float) -> list[float]:
        write, read, payload, trips = self.streams[0].write, self.streams[0].read, self.plan.payload, list[float]()
        end = ends.until(seconds)
        before = monotonic()
        while len(trips) < count and before < end:
            await write(payload)
            await read()
            now = monotonic()
            trips.append(now - before)
            before = now
        return trips

    async def answer(self) -> None:
        await self.accepted.wait()
        stream = self.streams[0]
        while (message := await stream.read()) is not aio.EOF:
            await stream.write(message)
