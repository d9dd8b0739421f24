"""Two processes at the two ends of a network, their conversation, and the judge of it.

A :class:`Conversation` is a near side that dials and a far side that listens, each a process of ``tests.networks.side``
with one node or several.  A :class:`World` has two of them over one network, so that each adapter is there in both
roles, and is struck by the same faults.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import IO, Any, TypeAlias

from .network import ADDRESS, End, Network
from .side import Plan

__all__ = ["BOTH", "PATIENCE", "Conversation", "Fact", "Side", "World", "converse"]

ROOT = Path(__file__).parents[2]

#: nothing that is waited for takes longer, on a busy machine either (seconds)
PATIENCE = 30.0

_PORT = 4000

#: what a side said: ``kind``, ``at`` (the machine's monotonic clock), and more
Fact: TypeAlias = dict[str, Any]


class Side:
    """A process at one end."""

    def __init__(self, network: Network, end: End, plan: Plan) -> None:
        self.plan = plan
        self._sends = 0
        program = [sys.executable, "-W", "error", "-m", "tests.networks.side", json.dumps(asdict(plan))]
        self.process = subprocess.Popen(
            network.inside(end, *program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        assert self.process.stdin is not None
        self._input: IO[bytes] = self.process.stdin
        self._facts: list[Fact] = []
        self._errors: list[bytes] = []
        self._news = threading.Condition()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._listen, self._complaints)]
        for thread in self._threads:
            thread.start()

    def __str__(self) -> str:
        return f"{self.plan.name} ({self.plan.adapter})"

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                fact = json.loads(line)
                with self._news:
                    self._facts.append(fact)
                    self._news.notify_all()

    def _complaints(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr:
            self._errors.extend(self.process.stderr)

    def tell(self, **command: Any) -> None:
        """Give it a command."""
        self._input.write(json.dumps(command).encode() + b"\n")
        self._input.flush()

    def send(self, count: int, size: int = 20, every: float = 0.0) -> None:
        """Let each of its nodes send so many messages, one after so many seconds, once what it sends is sent."""
        self._sends += 1
        self.tell(send=count, size=size, every=every)

    def facts(self, kind: str, since: float = 0.0) -> list[Fact]:
        """What it said of this kind, from a moment on."""
        with self._news:
            return [fact for fact in self._facts if fact["kind"] == kind and fact["at"] >= since]

    def until(self, condition: Callable[[], bool], what: str, limit: float = PATIENCE) -> None:
        """Wait for something that its words tell; raises AssertionError."""
        with self._news:
            if not self._news.wait_for(condition, limit):
                errors = b"".join(self._errors).decode(errors="replace")
                raise AssertionError(f"{self}: {what}: not within {limit:.0f} s; {self._facts[-5:]} {errors}")

    def each(self, kind: str, since: float, limit: float = PATIENCE) -> list[Fact]:
        """The first fact of this kind from each of its nodes since then; waits for them."""
        self.until(lambda: len({fact["node"] for fact in self.facts(kind, since)}) == self.plan.nodes,
                   f"{kind} of every node", limit)
        first: dict[int, Fact] = {}
        for fact in self.facts(kind, since):
            first.setdefault(fact["node"], fact)
        return [first[node] for node in sorted(first)]

    def connected(self) -> bool:
        """Was connected the last thing that happened to every node?"""
        last: dict[int, str] = {}
        with self._news:
            for fact in self._facts:
                if fact["kind"] in ("connected", "disconnected"):
                    last[fact["node"]] = fact["kind"]
        return list(last.values()) == ["connected"] * self.plan.nodes

    def until_read(self, limit: float = PATIENCE) -> None:
        """Wait until everything that it sent is read."""
        self.until(lambda: len(self.facts("read")) == self._sends * self.plan.nodes, "everything read", limit)

    def report(self) -> list[Fact]:
        """Everything on record, node by node."""
        asked = monotonic()
        self.tell(report=True)
        return self.each("report", asked)

    def close(self) -> None:
        """Let it end, and see that it ended well."""
        self._input.close()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.kill()
        errors = b"".join(self._errors).decode(errors="replace")
        assert "Traceback" not in errors, errors
        assert self.process.returncode == 0, errors

    def kill(self) -> None:
        """End it, whatever it does; wait for what it had to say."""
        try:
            self._input.close()
        except BrokenPipeError:
            pass
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join(PATIENCE)


class Conversation:
    """A side that dials and a side that listens."""

    def __init__(self, near: Side, far: Side) -> None:
        self.near = near
        self.far = far
        self.sides = (near, far)

    def until_connected(self, limit: float = PATIENCE) -> None:
        """Wait until every node is connected."""
        for side in self.sides:
            side.until(side.connected, "connected", limit)

    def judge(self, limit: float = PATIENCE) -> list[Fact]:
        """Every message exactly once and in order, every receipt true, and the node's own figures say the same.

        Returns the statistics of all nodes.
        """
        self.until_connected(limit)
        for side in self.sides:
            side.until_read(limit)
        reports = [side.report() for side in self.sides]
        for near, far in zip(*reports, strict=True):
            _judge(near, far)
            _judge(far, near)
        for side in self.sides:
            self._judge_connections(side)
        return [report["statistics"] for of_side in reports for report in of_side]

    def _judge_connections(self, side: Side) -> None:
        for report in side.report():
            node, figures = report["node"], report["statistics"]
            ends = [fact for fact in side.facts("disconnected") if fact["node"] == node]
            begins = [fact for fact in side.facts("connected") if fact["node"] == node]
            causes = dict(Counter(fact["cause"] for fact in ends))
            assert figures["disconnects"] == causes, f"{figures['disconnects']}, but told were {causes}"
            told = figures["connections"], figures["connected"]
            assert told == (len(begins), 1), f"connections, and now: {told}, but told were {len(begins)}"


def _judge(sender: Fact, receiver: Fact) -> None:
    """One direction of one conversation."""
    count = sender["sent"]
    assert receiver["numbers"] == list(range(count)), "not once each, or not in order, or damaged"
    assert receiver["handed"] == [[sequence, 1, False] for sequence in range(1, count + 1)], "handed over otherwise"
    acknowledged = dict(map(tuple, receiver["acknowledged"]))
    assert sorted(sequence for sequence, *_ in sender["outcomes"]) == list(range(1, count + 1)), "not one outcome each"
    for sequence, outcome, at in sender["outcomes"]:
        assert outcome == "read", f"{sequence} ended as {outcome}"
        assert at >= acknowledged[sequence], f"{sequence} was told to be read before it was"
    figures = sender["statistics"]
    assert figures["accepted"] == figures["read"] == figures["received"] == figures["transmitted"] == count, figures
    assert figures["unacknowledged"] == figures["outbox_cost"] == 0, figures
    figures = receiver["statistics"]
    assert (figures["taken_in"], figures["unread"], figures["redelivered"]) == (count, 0, 0), figures


class World:
    """A network and the conversations over it."""

    def __init__(self, network: Network, conversations: Sequence[Conversation]) -> None:
        self.network = network
        self.conversations = conversations

    @property
    def sides(self) -> list[Side]:
        """All processes."""
        return [side for conversation in self.conversations for side in conversation.sides]

    def at(self, end: End) -> list[Side]:
        """The processes of one end."""
        return [conversation.near if end == "near" else conversation.far for conversation in self.conversations]

    def send(self, count: int, size: int = 20, every: float = 0.0) -> None:
        """As :meth:`Side.send`, everybody."""
        for side in self.sides:
            side.send(count, size, every)

    def until_read(self, limit: float = PATIENCE) -> None:
        """Wait until everything that was sent is read."""
        for side in self.sides:
            side.until_read(limit)

    def until_connected(self) -> None:
        """Wait until everybody is connected."""
        for conversation in self.conversations:
            conversation.until_connected()

    def count(self, kind: str, since: float) -> list[int]:
        """How often that has happened since then, node by node."""
        return [
            sum(fact["node"] == node for fact in side.facts(kind, since))
            for side in self.sides for node in range(side.plan.nodes)
        ]

    def judge(self, limit: float = PATIENCE) -> list[Fact]:
        """As :meth:`Conversation.judge`; the statistics of all nodes."""
        return [figures for conversation in self.conversations for figures in conversation.judge(limit)]


#: who dials, and who listens
BOTH = (("asyncio", "threads"), ("threads", "asyncio"))


@contextmanager
def converse(
    *, nodes: int = 1, adapters: Sequence[tuple[str, str]] = BOTH, room: tuple[int, int] | None = None, **config: Any
) -> Iterator[World]:
    """A new network and conversations over it, connected; in the end everybody must end well.

    ``room``: bytes that the kernel has for what a socket receives and sends.  ``config``: the changes of each node.
    """
    with Network() as network, ExitStack() as stack:
        if room is not None:
            network.buffers(*room)
        conversations: list[Conversation] = []
        for index, (near, far) in enumerate(adapters):
            port = _PORT + 100 * index
            facts: dict[str, Any] = {"host": ADDRESS["far"], "port": port, "nodes": nodes, "config": config}
            dialler = Plan(adapter=near, name=f"near-{index}", peer=f"far-{index}", dials=True, **facts)
            listener = Plan(adapter=far, name=f"far-{index}", peer=f"near-{index}", dials=False, **facts)
            conversations.append(Conversation(Side(network, "near", dialler), Side(network, "far", listener)))
            for side in conversations[-1].sides:
                stack.callback(side.kill)
        world = World(network, conversations)
        world.until_connected()
        yield world
        for side in world.sides:
            side.close()
