"""networkio, by ``networkio_asyncio``: on asyncio, uvloop and trio, used as its tutorial does."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from time import monotonic
from typing import Any

import anyio
import anyio.abc

from benchmarks import ends
from networkio_asyncio import Config, MessagesReady, Node, Peer, Receipt

SERVER = "server"


class End(ends.End):
    """A node that listens, or as many nodes as there are connections, each with its peer."""

    def __init__(self, plan: ends.Plan) -> None:
        super().__init__(plan)
        self.config = Config(**plan.settings.get("config", {}))
        self.payload = plan.payload
        self.nodes: list[Node] = []
        self.tasks: anyio.abc.TaskGroup | None = None
        self.peers: list[Peer] = []
        self.waiting: deque[Receipt] = deque()
        self.port = 0

    # -- beginning ----------------------------------------------------------------------------------------------

    async def _open(self, peer_id: str) -> Node:
        """A node that is open for as long as the process lives, in a task of its own, as any program would have it."""
        if self.tasks is None:
            self.tasks = await anyio.create_task_group().__aenter__()
        node = Node(peer_id, config=self.config, journal=self.plan.journal(peer_id), **self.plan.trust)
        await self.tasks.start(self._live, node)
        self.nodes.append(node)
        return node

    async def _live(self, node: Node, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with node:
            task_status.started()
            await anyio.sleep_forever()

    async def listen(self, address: Any) -> int:
        node = await self._open(SERVER)
        self.listener = await node.listen("127.0.0.1", 0)
        self.port = self.listener.port
        self.peers = [node.peer("client-0")] if self.plan.connections == 1 else []
        return self.port

    async def connect(self, address: Any) -> None:
        self.port = address
        self.dials = anyio.Semaphore(ends.DIALS)
        for number in range(self.plan.connections):
            await self._open(f"client-{self.plan.first + number}")
        gate = anyio.Semaphore(ends.DIALS)

        async def one(node: Node) -> None:
            async with gate:
                peer = await self._connect(node)
                await peer.wait_connected()
            self.peers.append(peer)

        async with anyio.create_task_group() as tasks:
            for node in self.nodes:
                tasks.start_soon(one, node)

    async def _connect(self, node: Node) -> Peer:
        if self.plan.connections == 1:
            return await node.connect("127.0.0.1", self.port, SERVER)
        return await node.connect_stream(self._dial, SERVER)

    async def _dial(self) -> anyio.abc.ByteStream:
        """One process plays many machines, which would not make all their connections at the same moment."""
        async with self.dials:
            return await anyio.connect_tcp("127.0.0.1", self.port)

    # -- messages -----------------------------------------------------------------------------------------------

    async def send(self, count: int) -> None:
        if len(self.peers) == 1:
            await self._send(self.peers[0], count)
            return
        async with anyio.create_task_group() as tasks:
            for peer, share in zip(self.peers, ends.shares(count, len(self.peers)), strict=True):
                if share:
                    tasks.start_soon(self._send, peer, share)

    async def _send(self, peer: Peer, count: int) -> None:
        """Returns when the other application has read the last one, and so all."""
        receipt = await self._accept(peer, count)
        await receipt.read()

    async def _accept(self, peer: Peer, count: int) -> Receipt:
        payload = self.payload
        if self.plan.journal(SERVER):
            for share in ends.batches(count):
                receipt = (await peer.send_many([payload] * share))[-1]
            return receipt
        send = partial(peer.send, raw=True) if self.plan.raw else peer.send
        for _ in range(count):
            receipt = await send(payload)
        return receipt

    async def receive(self, count: int) -> None:
        if self.plan.journal(SERVER):
            while count > 0:
                count -= len(await self.peers[0].read_many(min(count, ends.BATCH)))
            return
        if len(self.peers) == 1:
            read = self.peers[0].read
            for _ in range(count):
                await read()
            return
        node = self.nodes[0]
        while count > 0:
            notice = await node.next_notice()
            if isinstance(notice, MessagesReady):
                read_nowait = notice.peer.read_nowait
                while read_nowait(default=None) is not None:
                    count -= 1

    async def ask(self, count: int, seconds: float) -> list[float]:
        request, payload, trips = self.peers[0].request, self.payload, list[float]()
        end = ends.until(seconds)
        before = monotonic()
        while len(trips) < count and before < end:
            await request(payload)
            now = monotonic()
            trips.append(now - before)
            before = now
        return trips

    async def answer(self) -> None:
        async for message in self.peers[0]:
            await message.reply(message.data)

    # -- backlog and depth --------------------------------------------------------------------------------------

    async def away(self) -> None:
        if self.plan.role == "client":
            self.peers[0].disconnect()

    async def hoard(self, count: int) -> None:
        self.waiting = deque([await self._accept(self.peers[0], count)])

    async def back(self, count: int) -> None:
        if self.plan.role == "server":
            await self.receive(count)
            return
        await self._connect(self.nodes[0])
        await self.waiting[-1].read()

    async def fill(self, depth: int) -> None:
        """So many that nobody reads yet."""
        send, payload = self.peers[0].send, self.payload
        self.waiting = deque([await send(payload) for _ in range(depth)])

    async def keep(self, count: int) -> None:
        """So many more, each when the oldest is read."""
        send, payload, waiting = self.peers[0].send, self.payload, self.waiting
        for _ in range(count):
            await waiting.popleft().read()
            waiting.append(await send(payload))

    async def finish(self) -> None:
        """Until all are read."""
        await self.waiting[-1].read()

    # -- storm --------------------------------------------------------------------------------------------------

    async def send_numbers(self, numbers: Iterable[int]) -> None:
        """The client: these to the server, from each of its nodes."""
        for peer in self.peers:
            for number in numbers:
                receipt = await peer.send(number)
            self.waiting.append(receipt)

    async def arrivals(self, count: int) -> None:
        """The server: wait until its library holds so many messages, which nobody reads."""
        while sum(peer.unread for peer in self.nodes[0].peers) < count:
            await anyio.sleep(0.02)

    async def vanish(self) -> None:
        """The server: its listener closes, and every connection breaks without a word."""
        node = self.nodes[0]
        await self.listener.aclose()
        for connection in node.endpoint.live():
            with node.inside as now:
                connection.connection_lost(now, ConnectionResetError("the cable was pulled"))

    async def come_back(self, clients: int, count: int) -> dict[str, int]:
        """The server: listen again, read everything; what was lost and what was doubled."""
        node = self.nodes[0]
        self.listener = await node.listen("127.0.0.1", self.port)
        numbers: dict[str, list[int]] = {}
        left = clients * count
        while left > 0:
            notice = await node.next_notice()
            if isinstance(notice, MessagesReady):
                here = numbers.setdefault(notice.peer.id, [])
                while (number := notice.peer.read_nowait(default=None)) is not None:
                    here.append(number)
                    left -= 1
        wrong = sum(here != list(range(count)) for here in numbers.values())
        return {"clients": len(numbers), "wrong": wrong, "connected": sum(peer.connected for peer in node.peers)}

    async def resume(self) -> None:
        """The client: until everything is read and every node is connected."""
        for receipt in self.waiting:
            await receipt.read()
        for peer in self.peers:
            await peer.wait_connected()
