"""What is measured: a table of scenarios, who takes part in each, and what each figure means.

Peers stand in the order of their relevance; ``--quick`` takes the first four that are there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

__all__ = ["SCENARIOS", "Scenario", "find", "in_order"]

_RATE = "messages/s"

#: what a program without an event loop would compare with, instead
_FOR_THREADS = {
    "websockets asyncio": "websockets sync", "asyncio.Protocol": "raw sockets", "pyzmq asyncio": "pyzmq sync",
    "picows": "multiprocessing.connection",
}

_BROKERS = ("JetStream", "JetStream file", "Redis streams", "mosquitto QoS 1")
_STREAMS = (
    "pyzmq sync", "websockets asyncio", "JetStream", "picows", "pyzmq asyncio", "pynng", "websockets sync", "grpcio",
    "multiprocessing.connection", "JetStream file", "Redis streams", "mosquitto QoS 1", "raw sockets",
    "asyncio.Protocol",
)
_READ = (
    "networkio: await peer.send(bytes) at one end, await peer.read() at the other, default Config; the run ends when "
    "the sender's receipt says that the last message was read, and so all"
)
#: 10^5 messages of 64 bytes cost about 13 MB, and the default limit of an outbox is 8 MiB
_ROOM = {"config": {"outbox_limit": 64 << 20}}
_MANY = {"config": {"max_pending_per_source": 1024}}
_CROWD = _MANY | {"crowd": True}
_LEAN = "networkio: the clients are the core with the driver of examples/embed_asyncio.py; the server is a Node"
_ONE_SOURCE = (
    "networkio: max_pending_per_source is lifted to max_pending, since all clients are at one address here; whoever "
    "takes part, one process plays all clients, and makes at most 100 connections at the same time"
)


@dataclass(frozen=True)
class Scenario:
    """One thing to measure."""

    name: str
    #: for the page and the heading
    title: str
    #: how it is measured (:mod:`benchmarks.workloads`)
    workload: str
    peers: tuple[str, ...]
    unit: str = _RATE
    better: Literal["higher", "lower"] = "higher"
    size: int = 64
    raw: bool = False
    connections: int = 1
    #: messages, where the scenario says how many
    count: int = 0
    #: a run lasts so long at least
    seconds: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: networkio itself in other circumstances, to compare with: a name, and what differs
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    #: are networkio's adapters compared in it?
    adapters: bool = False


_ALONE: Mapping[str, Any] = {"workload": "one-way", "connections": 1, "settings": {}}

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (
    Scenario("one-way-64B", "One way, 64 bytes", "one-way", _STREAMS, notes=(_READ,), adapters=True),
    Scenario("one-way-1KiB", "One way, 1 KiB", "one-way", _STREAMS, size=1024, notes=(_READ,)),
    Scenario(
        "durable-64B", "One way, 64 bytes, on disk at both ends", "one-way", ("JetStream file", "mosquitto persistent"),
        settings={"journal": True},
        notes=("networkio: both nodes with journal=FILE, durability \"full\": each batch is synced to the disk before "
               "it is transmitted or acknowledged; await peer.send_many of 1,000 at one end, peer.read_many(1000) at "
               "the other; the run ends when the sender's receipt says that the last message was read, and so all",
               "brokers: as they come; neither syncs for each message",),
    ),
    Scenario(
        "tls-64B", "One way, 64 bytes, encrypted", "one-way", (), settings={"tls": True},
        own={"networkio plain": {"settings": {}}},
        notes=(_READ, "networkio: both nodes with auth=PSK(...) and tls=TLS.self_signed()",
               "networkio plain: without either, in the same run; the target is at least 0.6 of it"),
    ),
    Scenario("one-way-64KiB", "One way, 64 KiB", "one-way", _STREAMS, size=64 << 10, notes=(_READ,)),
    Scenario(
        "one-way-1MiB-raw", "One way, 1 MiB, raw", "one-way",
        ("pyzmq sync", "websockets asyncio", "asyncio.Protocol", "raw sockets", "picows", "pyzmq asyncio", "pynng",
         "websockets sync", "grpcio", "multiprocessing.connection", "JetStream", "JetStream file", "Redis streams",
         "mosquitto QoS 1"),
        size=1 << 20, raw=True, notes=(_READ + "; sent with raw=True",), adapters=True,
    ),
    Scenario(
        "round-trip-64B", "Request and reply, 64 bytes", "round-trip",
        ("asyncio.Protocol", "websockets asyncio", "pyzmq asyncio", "pyzmq sync", "raw sockets", "picows", "pynng",
         "websockets sync", "grpcio", "multiprocessing.connection"),
        unit="us (p50)", better="lower", settings={"echo": True},
        notes=("networkio: await peer.request(bytes) at one end; async for message in peer, await "
               "message.reply(message.data) at the other; default Config",
               "one request at a time; p99 stands beside"),
        adapters=True,
    ),
    Scenario(
        "both-ways-64B", "Both ways at once, 64 bytes", "both-ways",
        ("pyzmq asyncio", "websockets asyncio", "pyzmq sync", "asyncio.Protocol", "picows", "pynng", "websockets sync",
         "grpcio", "multiprocessing.connection", "raw sockets"),
        settings={"both": True}, notes=(_READ, "messages of both directions together"),
    ),
    Scenario(
        "fan-in-100", "100 clients send to one server, 64 bytes", "fan-in",
        ("pyzmq sync", "websockets asyncio", "asyncio.Protocol", "JetStream", "picows", "pyzmq asyncio", "pynng",
         "grpcio", "Redis streams", "mosquitto QoS 1"),
        connections=100, settings=_MANY, own={"networkio, one pair": _ALONE},
        notes=("networkio: the server takes notices (await node.next_notice()), then peer.read_nowait() until nothing "
               "is there; each client's receipt of its last message says read", _ONE_SOURCE),
    ),
    Scenario(
        "fan-in-1000", "1,000 clients send to one server, 64 bytes", "fan-in",
        ("pyzmq sync", "websockets asyncio", "asyncio.Protocol", "picows", "pyzmq asyncio", "JetStream",
         "Redis streams"),
        connections=1000, settings=_MANY, own={"networkio, one pair": _ALONE}, seconds=3.0,
        notes=("networkio: as in fan-in-100", _ONE_SOURCE,
               "runs of three seconds: one process needs half of one until all of its 1,000 clients have begun"),
    ),
    Scenario(
        "idle-memory-5000", "Memory of the server for each of 5,000 idle connections", "idle-memory",
        ("websockets asyncio", "asyncio.Protocol", "picows"), unit="KiB/connection", better="lower",
        connections=5000, settings=_CROWD,
        notes=("proportional set size (PSS) of the server's process, less what it was before anybody connected, by the "
               "number of connections", _LEAN, _ONE_SOURCE),
    ),
    Scenario(
        "idle-cpu-5000", "Processor time of a server with 5,000 idle connections", "idle-cpu",
        ("websockets asyncio", "asyncio.Protocol", "picows"), unit="% of a core", better="lower",
        connections=5000, settings=_CROWD,
        notes=("user and system time of the server's process; networkio and websockets ask every 20 s of silence "
               "whether the other side is there (their defaults), the others do not",
               "all are idle at the same time", _LEAN, _ONE_SOURCE),
    ),
    Scenario(
        "storm-5000", "A listener returns to 5,000 clients with 10 messages in flight each", "storm",
        ("websockets asyncio",), unit="s", better="lower", connections=5000, count=10,
        settings={"config": {"max_pending_per_source": 1024, "backoff_max": 1.0, "dial_timeout": 120.0}},
        notes=("networkio: from the listener's return until every client is connected and every message is read once "
               "and in order, and its receipt says so; of the 10, 5 were received and unread when the connections "
               "broke, 5 were sent afterwards; backoff_max=1 s",
               "networkio: dial_timeout=120 s, since waiting for one's turn among 5,000 in one process counts",
               "websockets: the time for 5,000 fresh connections, without any message", _ONE_SOURCE),
    ),
    Scenario(
        "backlog-100k", "Coming back to a backlog of 100,000 messages", "backlog",
        ("pyzmq sync", "Redis streams", "JetStream", "mosquitto QoS 1", "JetStream file"),
        count=100_000, settings=_ROOM, own={"networkio, no backlog": {"workload": "one-way"}},
        notes=("networkio: peer.disconnect(), 100,000 x await peer.send(bytes), node.connect(); from the call of "
               "connect until the last message is read; outbox_limit=64 MiB: they cost more than the default, 8 MiB",
               "pyzmq: the receiver's socket is closed and bound again (a new one at either end: it resumes nothing)",
               "brokers: the broker holds 20,000 while the reader is away; the time is the reader's alone"),
    ),
    Scenario(
        "depth", "Throughput with 100,000 messages in the outbox, 64 bytes", "depth", (), count=100_000, settings=_ROOM,
        own={"networkio, depth 1": {"count": 1}, "networkio, depth 1,000": {"count": 1000}},
        notes=("networkio: so many messages are sent before anybody reads, then one more whenever the oldest is read "
               "(await receipt.read()); outbox_limit=64 MiB, since they cost more than the default 8 MiB",),
    ),
)}


def find(name: str) -> Scenario:
    """The scenario of that name; those with many connections also exist with any other number of them (storm-500).

    Raises KeyError.
    """
    if name in SCENARIOS:
        return SCENARIOS[name]
    kind, _, number = name.rpartition("-")
    if not re.fullmatch("[1-9][0-9]*", number):
        raise KeyError(name)
    for scenario in SCENARIOS.values():
        if scenario.connections > 1 and scenario.name.rpartition("-")[0] == kind:
            title = scenario.title.replace(f"{scenario.connections:,}", f"{int(number):,}")
            return replace(scenario, name=name, title=title, connections=int(number))
    raise KeyError(name)


def in_order(scenario: Scenario, adapter: str) -> list[str]:
    """Its peers, the most relevant first for those who use this adapter."""
    if adapter != "threads":
        return list(scenario.peers)
    wished = [_FOR_THREADS.get(name, name) for name in scenario.peers]
    return list(dict.fromkeys(name for name in [*wished, *scenario.peers] if name in scenario.peers))
