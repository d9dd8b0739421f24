"""networkio, by ``networkio_threads``: one conversation, or the server of many.

Where many clients take part, :mod:`.networkio_asyncio` plays them: a thread a client would measure threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from benchmarks import ends
from networkio_threads import Config, MessagesReady, Node, Peer, Receipt

SERVER = "server"


class End(ends.End):
    """One node."""

    def __init__(self, plan: ends.Plan) -> None:
        super().__init__(plan)
        self.payload = plan.payload
        name = SERVER if plan.role == "server" else f"client-{plan.first}"
        self.node = Node(
            name, config=Config(**plan.settings.get("config", {})), journal=plan.journal(name), **plan.trust,
        ).__enter__()
        self.peer: Peer | None = None
        self.waiting: deque[Receipt] = deque()
        self.port = 0

    @property
    def other(self) -> Peer:
        """The peer at the other end."""
        assert self.peer is not None
        return self.peer

    def listen(self, address: Any) -> int:
        self.listener = self.node.listen("127.0.0.1", 0)
        self.port = self.listener.port
        self.peer = self.node.peer("client-0") if self.plan.connections == 1 else None
        return self.port

    def connect(self, address: Any) -> None:
        self.port = address
        self.peer = self.node.connect("127.0.0.1", self.port, SERVER)
        self.peer.wait_connected()

    def send(self, count: int) -> None:
        """Returns when the other application has read the last one, and so all."""
        self._accept(count).read()

    def _accept(self, count: int) -> Receipt:
        payload = self.payload
        if self.plan.journal(SERVER):
            for share in ends.batches(count):
                receipt = self.other.send_many([payload] * share)[-1]
            return receipt
        send: Callable[[Any], Receipt] = partial(self.other.send, raw=True) if self.plan.raw else self.other.send
        for _ in range(count):
            receipt = send(payload)
        return receipt

    def receive(self, count: int) -> None:
        if self.peer is not None and self.plan.journal(SERVER):
            while count > 0:
                count -= len(self.peer.read_many(min(count, ends.BATCH)))
            return
        if self.peer is not None:
            read = self.peer.read
            for _ in range(count):
                read()
            return
        while count > 0:
            notice = self.node.next_notice()
            if isinstance(notice, MessagesReady):
                read_nowait = notice.peer.read_nowait
                while read_nowait(default=None) is not None:
                    count -= 1

    def ask(self, count: int, seconds: float) -> list[float]:
        request, payload, trips = self.other.request, self.payload, list[float]()
        end = ends.until(seconds)
        before = monotonic()
        while len(trips) < count and before < end:
            request(payload)
            now = monotonic()
            trips.append(now - before)
            before = now
        return trips

    def answer(self) -> None:
        for message in self.other:
            message.reply(message.data)

    # -- backlog and depth --------------------------------------------------------------------------------------

    def away(self) -> None:
        if self.plan.role == "client":
            self.other.disconnect()

    def hoard(self, count: int) -> None:
        self.waiting = deque([self._accept(count)])

    def back(self, count: int) -> None:
        if self.plan.role == "server":
            self.receive(count)
            return
        self.node.connect("127.0.0.1", self.port, SERVER)
        self.waiting[-1].read()

    def fill(self, depth: int) -> None:
        """So many that nobody reads yet."""
        self.waiting = deque(self.other.send(self.payload) for _ in range(depth))

    def keep(self, count: int) -> None:
        """So many more, each when the oldest is read."""
        send, payload, waiting = self.other.send, self.payload, self.waiting
        for _ in range(count):
            waiting.popleft().read()
            waiting.append(send(payload))

    def finish(self) -> None:
        """Until all are read."""
        self.waiting[-1].read()

    # -- storm: the server's part -------------------------------------------------------------------------------

    def arrivals(self, count: int) -> None:
        """Wait until the library holds so many messages, which nobody reads."""
        while sum(peer.unread for peer in self.node.peers) < count:
            self.node.next_notice(0.02)

    def vanish(self) -> None:
        """The listener closes, and every connection breaks without a word."""
        self.listener.close()
        with self.node.inside as now:
            for connection in list(self.node.endpoint.live()):
                connection.connection_lost(now, ConnectionResetError("the cable was pulled"))

    def come_back(self, clients: int, count: int) -> dict[str, int]:
        """Listen again, read everything; what was lost and what was doubled."""
        self.listener = self.node.listen("127.0.0.1", self.port)
        numbers: dict[str, list[int]] = {}
        left = clients * count
        while left > 0:
            notice = self.node.next_notice()
            if isinstance(notice, MessagesReady):
                here = numbers.setdefault(notice.peer.id, [])
                while (number := notice.peer.read_nowait(default=None)) is not None:
                    here.append(number)
                    left -= 1
        wrong = sum(here != list(range(count)) for here in numbers.values())
        connected = sum(peer.connected for peer in self.node.peers)
        return {"clients": len(numbers), "wrong": wrong, "connected": connected}
