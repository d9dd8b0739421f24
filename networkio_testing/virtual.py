"""A breakable network between nodes of ``networkio_asyncio``, for a loop whose time is virtual.

Theory of operation
-------------------
The nodes are the adapter's own, unmodified: a :class:`VirtualNetwork` opens byte streams for them by the adapter's
public seams (``Node.connect_stream``, ``Node.serve_stream``).  A :class:`VirtualStream` is one end of a
:class:`VirtualWire`: two *directions*, in each of which bytes are under way until they are due, and then wait to be
received.  Of both together there are at most ``CAPACITY`` bytes, then the sender waits, as with TCP.  What is written
to a stream whose other end is gone comes back as a reset.  A partition stops what is under way, and the news of a break
is under way as bytes are; the words for that, and all others, are those of
:class:`~networkio_testing.network.Network`.

Time is that of the running loop.  On a :class:`~networkio_testing.loop.VirtualLoop` nothing here takes real time, and
the same program with the same seed makes the same run; on any other asyncio loop the network works too, in real time.

    async def main(network: VirtualNetwork) -> None:
        async with network.node("server") as server, network.node("client") as client:
            peer = await network.connect(client, "server")
            receipt = await peer.send("hello")
            network.cut(client, server)
            assert await server.peer("client").read() == "hello"
            await receipt.read()

    network = VirtualNetwork()
    network.run(main, network)
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio.abc import ByteStream

from networkio_proto import NodeClosed

from .loop import LIMIT, run_virtual
from .network import Name, Network
from .world import Cut

if TYPE_CHECKING:
    import networkio_asyncio

__all__ = ["VirtualNetwork", "VirtualStream", "VirtualWire"]

T = TypeVar("T")

#: what one direction of a wire takes before its writer waits (bytes)
CAPACITY = 1 << 18

#: how late comes what was said on a wire that was cut "late" (seconds)
_LATE = 3.0


class _Direction:
    """Bytes on their way to one end, and those that have arrived there."""

    __slots__ = ("alarm", "arrived", "changed", "ended", "lost", "size", "under_way")

    def __init__(self) -> None:
        #: when they are due; None instead of bytes: the writer's end; an error: the news that the wire is broken
        self.under_way: deque[tuple[float, bytes | OSError | None]] = deque()
        self.arrived: deque[bytes] = deque()
        #: bytes of both
        self.size = 0
        #: the end has arrived
        self.ended = False
        #: nothing arrives any more
        self.lost = False
        #: what wakes it when the next is due
        self.alarm: asyncio.TimerHandle | None = None
        #: something happened here that the reader or the writer may wait for
        self.changed = anyio.Event()

    def clear(self) -> None:
        """All of it is gone."""
        self.under_way.clear()
        self.arrived.clear()
        self.size = 0

    def wake(self) -> None:
        """Let them look."""
        self.changed.set()
        self.changed = anyio.Event()


class VirtualWire:
    """One connection; end 0 dialled, end 1 accepted."""

    def __init__(self, network: VirtualNetwork, names: tuple[str, str]) -> None:
        self._network = network
        self._loop = asyncio.get_running_loop()
        #: who dialled, and who accepted
        self.names = names
        #: directions[i] leads away from end i
        self.directions = (_Direction(), _Direction())
        #: what each end has learnt of its death, and which ones are closed
        self.errors: list[OSError | None] = [None, None]
        self.closed = [False, False]
        self._held = False

    def __repr__(self) -> str:
        return f"<VirtualWire {self.names[0]}->{self.names[1]}>"

    @property
    def open(self) -> bool:
        """Does either end still use it?"""
        return not all(closed or error for closed, error in zip(self.closed, self.errors, strict=True))

    def put(self, end: int, data: bytes | None) -> None:
        """``end`` writes something, or (None) that nothing follows."""
        way, now = self.directions[end], self._loop.time()
        due = now + self._network.distance(*self.names)
        if way.under_way:  # nothing is overtaken
            due = max(due, way.under_way[-1][0])
        way.under_way.append((due, data))
        if data is not None:
            way.size += len(data)
            self._network.note(now, self.names[end], self.names[1 - end], data)
        self._move(end)

    def _move(self, end: int) -> None:
        """What is due arrives."""
        way, other = self.directions[end], 1 - end
        if way.alarm is not None:
            way.alarm.cancel()
            way.alarm = None
        if self._held or way.lost:
            return
        now, moved = self._loop.time(), False
        while way.under_way and way.under_way[0][0] <= now:
            _, data = way.under_way.popleft()
            moved = True
            if data is None:
                way.ended = True
            elif isinstance(data, OSError):
                self._lose(other, data)
            elif self.closed[other]:  # nobody is there to receive it
                way.clear()
                self._lose(end, ConnectionResetError("the other side is gone"))
            else:
                way.arrived.append(data)
        if way.under_way:
            way.alarm = self._loop.call_at(way.under_way[0][0], self._move, end)
        if moved:
            way.wake()

    def hold(self, on: bool) -> None:
        """Let nothing arrive from now on, until it may again."""
        self._held = on
        for end in (0, 1):
            self._move(end)

    def snap(self, end: int, how: Cut) -> None:
        """Break it in one of the five ways of :data:`~networkio_testing.world.CUTS`; ``end`` learns it, if only one.

        Behind a partition the other end learns it when that is over.
        """
        there, back, now = self.directions[end], self.directions[1 - end], self._loop.time()
        for way in self.directions:
            if how == "rst" or way.lost:  # what fell into a hole before is gone
                way.clear()
        if how == "rst":
            self._break(end, ConnectionResetError("cut"))
        elif how == "fin":
            there.under_way = deque((min(due, now), data) for due, data in there.under_way)
            there.under_way.append((now, None))
            if not self._held:
                back.arrived.extend(data for _, data in back.under_way if isinstance(data, bytes))
                back.under_way.clear()
            back.ended = True
            self._break(end, BrokenPipeError("the connection was closed"))
        else:
            back.lost = True
            if how == "late":
                there.under_way = deque((max(due, now + _LATE), data) for due, data in there.under_way)
                self._move(end)
            else:
                there.lost = True
            if how != "hole":
                back.clear()
                self._lose(end, ConnectionResetError("cut"))

    def _break(self, end: int, error: OSError) -> None:
        """``end`` learns it now, the other one as soon as news gets there."""
        there, back = self.directions[end], self.directions[1 - end]
        there.lost, back.lost = False, True
        self._lose(end, error)
        there.under_way.append((self._loop.time(), error))
        self._move(end)

    def _lose(self, end: int, error: OSError) -> None:
        if self.errors[end] is None:
            self.errors[end] = error
        for way in self.directions:
            way.wake()

    def close(self, end: int) -> None:
        """``end`` is closed: what it said still arrives, and then its end, unless the connection is broken."""
        if not self.closed[end]:
            self.closed[end] = True
            if self.errors[end] is None:
                self.put(end, None)
            for way in self.directions:
                way.wake()


class VirtualStream(ByteStream):
    """One end of a :class:`VirtualWire`."""

    def __init__(self, wire: VirtualWire, end: int) -> None:
        self._wire = wire
        self._end = end

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """None: it has neither socket nor address."""
        return {}

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        way = self._wire.directions[1 - self._end]
        while not way.arrived:
            self._check_open()
            if way.ended:
                raise anyio.EndOfStream
            self._check_whole()
            await way.changed.wait()
        self._check_open()
        data = way.arrived.popleft()
        if len(data) > max_bytes:
            way.arrived.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        way.size -= len(data)
        way.wake()
        return data

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        way = self._wire.directions[self._end]
        self._check_open()
        self._check_whole()
        while way.size >= CAPACITY:
            await way.changed.wait()
            self._check_open()
            self._check_whole()
        self._wire.put(self._end, bytes(item))

    async def send_eof(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._check_open()
        self._check_whole()
        self._wire.put(self._end, None)

    async def aclose(self) -> None:
        self._wire.close(self._end)
        await anyio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._wire.closed[self._end]:
            raise anyio.ClosedResourceError

    def _check_whole(self) -> None:
        error = self._wire.errors[self._end]
        if error is not None:
            raise anyio.BrokenResourceError from error


class VirtualNetwork(Network[VirtualWire]):
    """Nodes of ``networkio_asyncio``, and a network between them that can break.

    ``seed`` determines the run, on a virtual loop.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        #: the node of the present process of each machine
        self.nodes: dict[str, networkio_asyncio.Node] = {}
        self._lives: dict[str, int] = {}
        self._wires: list[VirtualWire] = []
        #: for dials that get no answer: the partition is another one
        self._regrouped: anyio.Event | None = None

    def __repr__(self) -> str:
        return f"<VirtualNetwork of {', '.join(self.nodes) or 'nobody'}>"

    def run(self, main: Callable[..., Coroutine[Any, Any, T]], *args: Any, limit: float = LIMIT) -> T:
        """Run ``main(*args)`` in virtual time, then :meth:`check`; returns what it returns.

        Raises what it raises; Stuck if it can never end, or takes longer than ``limit`` virtual seconds; NotVirtual;
        Unfinished.
        """
        result = run_virtual(main, *args, limit=limit)
        self.check()
        return result

    # -- nodes ------------------------------------------------------------------------------------------------------

    def node(self, name: str, **options: Any) -> networkio_asyncio.Node:
        """A new node of that name, to be opened with ``async with``; ``options``: those of ``networkio_asyncio.Node``.

        Its randomness comes from the seed.  It can be dialled by its name while it is open.  One that had the name
        before is another process, and must be closed, or have crashed (ValueError).
        """
        import networkio_asyncio  # here, for whoever tests on the core does not need it

        options.setdefault("random", random.Random(f"{self.seed}/{name}/{self._lives.get(name, 0) + 1}"))
        return self.add(networkio_asyncio.Node(name, **options))

    def add(self, node: networkio_asyncio.Node) -> networkio_asyncio.Node:
        """As :meth:`node`, with one that you made.  Give it a seeded ``random``, or no two runs are the same."""
        old = self.nodes.get(node.id)
        if old is not None and not old.closed:
            raise ValueError(f"there is a node {node.id!r} already; close it first, or crash({node.id!r})")
        self.nodes[node.id] = node
        self._lives[node.id] = self._lives.get(node.id, 0) + 1
        return node

    async def connect(self, node: networkio_asyncio.Node, to: Name) -> networkio_asyncio.Peer:
        """As ``node.connect(host, port, to)``: keep a connection to that node of this network, be it there or not."""
        name = to if isinstance(to, str) else to.id
        return await node.connect_stream(self.opening(node, name), name, name=name)

    def opening(self, node: networkio_asyncio.Node, to: str) -> Callable[[], Coroutine[Any, Any, ByteStream]]:
        """What ``node.connect_stream`` takes to dial the node of that name: for code that calls it itself."""
        return partial(self._open, node, to)

    async def _open(self, dialer: networkio_asyncio.Node, to: str) -> ByteStream:
        """Dial; cancelled when there is no answer for too long."""
        await anyio.sleep(self.distance(dialer.id, to))
        while self.apart(dialer.id, to):
            if self._regrouped is None:
                self._regrouped = anyio.Event()
            await self._regrouped.wait()
        node = self.nodes.get(to)
        if node is None or self.refuses(to) or self.nodes.get(dialer.id) is not dialer:
            raise ConnectionRefusedError("refused")
        wire = VirtualWire(self, (dialer.id, to))
        try:
            node.serve_stream(VirtualStream(wire, 1), source=dialer.id)
        except NodeClosed:
            raise ConnectionRefusedError("refused") from None
        self._wires = [*self.breakable(), wire]
        return VirtualStream(wire, 0)

    def crash(self, node: Name, *, reset: bool = True) -> None:
        """Its process dies, and nothing that it still says is heard.

        Whoever was connected to it learns that, unless the machine is gone too (``reset=False``).

        The object lives on: cancel the task that runs it, or leave its ``async with``, before or after.  A new process
        of that name is a new :meth:`node`.
        """
        name = self.name_of(node)
        self.cut(name, how="rst" if reset else "half")
        self.nodes.pop(name, None)

    def check(self) -> None:
        """Raise Unfinished if a node is left with messages that were not taken, not settled, or not read.

        Nodes that crashed do not count.  Does nothing if ``strict`` is False.
        """
        self.check_finished(self.nodes.values())

    # -- what the words ask -----------------------------------------------------------------------------------------

    def known(self) -> Collection[str]:
        return self._lives

    def breakable(self) -> list[VirtualWire]:
        self._wires = [wire for wire in self._wires if wire.open]
        return list(self._wires)

    def _regroup(self) -> None:
        super()._regroup()
        if self._regrouped is not None:
            self._regrouped.set()
            self._regrouped = None
