"""One side of the tests of real networks: a process with a node, or several, that is told what to do line by line.

``python -m tests.networks.side PLAN``, where PLAN is a :class:`Plan` in JSON.  Standard input brings commands, one JSON
object a line: ``{"send": count, "size": bytes, "every": seconds}`` lets every node send so many messages,
``{"report": true}`` asks for everything that is on record.  Standard output says what happens, one JSON object a
line, with the time of the machine's monotonic clock, which all its processes and namespaces share.  The process
ends with its standard input, or with the process that started it, whichever comes first.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import asdict, dataclass
from time import monotonic, sleep
from typing import Any

import anyio

import networkio_asyncio
import networkio_threads
from networkio_proto import Config, ConnectionFailure, Event, HandedOver, Instrumentation, Outcome, ResumeReport
from networkio_proto.errors import NodeClosed
from networkio_proto.instrumentation import How
from networkio_proto.statistics import NodeStatistics, cause

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a side is: ``nodes`` nodes, each with one peer, on successive ports of ``host``."""

    adapter: str
    name: str
    peer: str
    host: str
    port: int
    dials: bool
    nodes: int
    config: dict[str, Any]

    def options(self, record: Record) -> dict[str, Any]:
        """For the node that this record is of."""
        return {"config": Config(**self.config), "auth": "insecure", "instrumentation": record}


_output = threading.Lock()


def tell(kind: str, **facts: Any) -> None:
    """Say what happened."""
    line = json.dumps({"kind": kind, "at": monotonic(), **facts})
    with _output:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class Record(Instrumentation):
    """What happened to one node, and when."""

    def __init__(self, index: int) -> None:
        self.index = index
        #: messages that the application has sent; one command at a time, so that their numbers are in order
        self.sent = 0
        self.turn = threading.Lock()
        #: what it has read: the number in each message, in the order of the hand-overs; -1 for a damaged one
        self.numbers: list[int] = []
        #: sequence, attempt and whether it was flagged as redelivered, of every hand-over
        self.handed: list[tuple[int, int, bool]] = []
        #: sequence and time of every acknowledgement
        self.acknowledged: list[tuple[int, float]] = []
        #: sequence, outcome and time of every end of a message of ours
        self.outcomes: list[tuple[int, str, float]] = []

    def message(self, size: int) -> list[object]:
        """The next message to send."""
        number, self.sent = self.sent, self.sent + 1
        return [number, bytes([number % 256]) * size]

    def read(self, data: Any) -> None:
        """The application has a message."""
        number, filling = data
        self.numbers.append(number if filling == bytes([number % 256]) * len(filling) else -1)

    def notice(self, notice: Event) -> None:
        """The application took a notice."""
        if isinstance(notice, networkio_threads.PeerDisconnected):
            tell("noticed", node=self.index, cause=cause(notice.error))

    def report(self, figures: NodeStatistics) -> None:
        """Say everything."""
        (peer,) = figures.peers.values()
        tell("report", node=self.index, sent=self.sent, numbers=self.numbers, handed=self.handed,
             acknowledged=self.acknowledged, outcomes=self.outcomes, statistics=asdict(peer))

    # -- what the core tells --------------------------------------------------------------------------------------

    def outcome(self, peer_id: str, sequence: int, outcome: Outcome) -> None:
        self.outcomes.append((sequence, outcome.value, monotonic()))

    def receiving(self, message: HandedOver) -> None:
        self.handed.append((message.sequence, message.attempt, message.redelivered))

    def settled(self, message: HandedOver, how: How) -> None:
        self.acknowledged.append((message.sequence, monotonic()))

    def connected(self, peer_id: str, report: ResumeReport) -> None:
        tell("connected", node=self.index, downtime=report.downtime)

    def disconnected(self, peer_id: str, error: ConnectionFailure) -> None:
        tell("disconnected", node=self.index, cause=cause(error), remote=error.remote, why=str(error))


def on_threads(plan: Plan) -> None:
    """The nodes of ``networkio_threads``; a thread for whatever waits."""

    def read(peer: networkio_threads.Peer, record: Record) -> None:
        for message in peer:
            record.read(message.data)

    def take_notices(node: networkio_threads.Node, record: Record) -> None:
        for notice in node.notifications():
            record.notice(notice)

    def send(peer: networkio_threads.Peer, record: Record, count: int, size: int, every: float) -> None:
        with record.turn:
            for _ in range(count):
                receipt = peer.send(record.message(size))
                if every:
                    sleep(every)
        tell("sent", node=record.index)
        receipt.read()
        tell("read", node=record.index)

    def begin(function: Callable[..., None], *arguments: Any) -> None:
        def run() -> None:
            with suppress(NodeClosed):  # the test is over
                function(*arguments)

        threading.Thread(target=run, daemon=True).start()

    with ExitStack() as stack:
        all_of = []
        for index in range(plan.nodes):
            record = Record(index)
            node = stack.enter_context(networkio_threads.Node(f"{plan.name}-{index}", **plan.options(record)))
            stack.callback(node.close, 0)
            if plan.dials:
                peer = node.connect(plan.host, plan.port + index, f"{plan.peer}-{index}")
            else:
                node.listen(plan.host, plan.port + index)
                peer = node.peer(f"{plan.peer}-{index}")
            begin(read, peer, record)
            begin(take_notices, node, record)
            all_of.append((node, peer, record))
        tell("ready")
        for line in sys.stdin:
            command = json.loads(line)
            for node, peer, record in all_of:
                if "send" in command:
                    begin(send, peer, record, command["send"], command["size"], command["every"])
                else:
                    record.report(node.statistics())


async def on_asyncio(plan: Plan) -> None:
    """The nodes of ``networkio_asyncio``; a task for whatever waits."""

    async def read(peer: networkio_asyncio.Peer, record: Record) -> None:
        async for message in peer:
            record.read(message.data)

    async def take_notices(node: networkio_asyncio.Node, record: Record) -> None:
        async for notice in node.notifications():
            record.notice(notice)

    turns: dict[Record, anyio.Lock] = defaultdict(anyio.Lock)

    async def send(peer: networkio_asyncio.Peer, record: Record, count: int, size: int, every: float) -> None:
        async with turns[record]:
            for _ in range(count):
                receipt = await peer.send(record.message(size))
                if every:
                    await anyio.sleep(every)
        tell("sent", node=record.index)
        await receipt.read()
        tell("read", node=record.index)

    async with AsyncExitStack() as stack:
        all_of = []
        for index in range(plan.nodes):
            record = Record(index)
            node = await stack.enter_async_context(
                networkio_asyncio.Node(f"{plan.name}-{index}", **plan.options(record))
            )
            stack.push_async_callback(node.aclose, 0)
            if plan.dials:
                peer = await node.connect(plan.host, plan.port + index, f"{plan.peer}-{index}")
            else:
                await node.listen(plan.host, plan.port + index)
                peer = node.peer(f"{plan.peer}-{index}")
            all_of.append((node, peer, record))
        async with anyio.create_task_group() as tasks:
            for node, peer, record in all_of:
                tasks.start_soon(read, peer, record)
                tasks.start_soon(take_notices, node, record)
            tell("ready")
            while line := await anyio.to_thread.run_sync(sys.stdin.readline):
                command = json.loads(line)
                for node, peer, record in all_of:
                    if "send" in command:
                        tasks.start_soon(send, peer, record, command["send"], command["size"], command["every"])
                    else:
                        record.report(node.statistics())
            tasks.cancel_scope.cancel()


def main() -> None:
    # a side that stands still (SIGSTOP) would not notice the end of its standard input
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which then end their sides
    plan = Plan(**json.loads(sys.argv[1]))
    if plan.adapter == "threads":
        on_threads(plan)
    else:
        anyio.run(on_asyncio, plan, backend="asyncio")


if __name__ == "__main__":
    main()
