"""Who takes part: networkio, what people use instead, and the limits that no library can pass.

One module a contender; this table tells what each needs, so that one that is absent is reported with the reason.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec

__all__ = ["NETWORKIO", "PEERS", "Contender", "module_of", "program"]

NETWORKIO = "networkio"


@dataclass(frozen=True)
class Contender:
    """One library, in one way of using it."""

    module: str
    #: how it is set up, and what a message is counted by: told with the results
    notes: str
    #: what must be importable
    imports: tuple[str, ...] = ()
    #: whose version to tell
    distributions: tuple[str, ...] = ()
    #: the server that it talks to
    program: str = ""

    def absent(self) -> str:
        """Why it cannot take part here ("" if it can)."""
        missing = [name for name in self.imports if find_spec(name) is None]
        if missing:
            return f"{', '.join(self.distributions)} is not installed for this Python; `make bench-peers` does it"
        if self.program and program(self.program) is None:
            return f"the program {self.program} is not installed; `make bench-peers` does it on Debian, as root"
        return ""

    def versions(self) -> dict[str, str]:
        """Of what it consists of."""
        return {name: metadata.version(name) for name in self.distributions}


PEERS: dict[str, Contender] = {
    "pyzmq sync": Contender(
        "pyzmq_sync",
        "PUSH/PULL (a pair for each direction; REQ/REP for round trips), blocking calls, no high-water mark, so that "
        "nothing blocks or drops; copy=False from 64 KiB; counted when the other application has received it; "
        "acknowledges nothing",
        ("zmq",), ("pyzmq",),
    ),
    "pyzmq asyncio": Contender("pyzmq_asyncio", "as pyzmq sync, with zmq.asyncio", ("zmq",), ("pyzmq",)),
    "pynng": Contender(
        "pynng_sync",
        "Push0/Pull0 (Pair0 both ways, Req0/Rep0 for round trips), blocking calls, buffers of 8,192 messages; "
        "counted when the other application has received it; acknowledges nothing",
        ("pynng",), ("pynng",),
    ),
    "websockets asyncio": Contender(
        "websockets_asyncio",
        "serve/connect, compression off, no size limit, max_queue of 4,096 frames so that reading does not pause all "
        "the time; counted when the other application has received it; acknowledges nothing",
        ("websockets",), ("websockets",),
    ),
    "websockets sync": Contender(
        "websockets_sync", "as websockets asyncio, with websockets.sync and threads", ("websockets",), ("websockets",),
    ),
    "picows": Contender(
        "picows_asyncio",
        "callbacks, payloads copied out as bytes, the sender heeds pause_writing; counted when the other application "
        "has received it; acknowledges nothing",
        ("picows",), ("picows",),
    ),
    "grpcio": Contender(
        "grpcio_asyncio",
        "grpc.aio, one stream of bytes without protobuf; counted when the other application has read it from its "
        "stream; acknowledges nothing",
        ("grpc",), ("grpcio",),
    ),
    "multiprocessing.connection": Contender(
        "multiprocessing_connection",
        "Listener/Client over TCP, send_bytes/recv_bytes; counted when the other application has received it; "
        "acknowledges nothing",
    ),
    "JetStream": Contender(
        "jetstream",
        "memory storage, publish_async (at most 4,000 unacknowledged), pull consumer in batches of 100, explicit acks; "
        "counted when the broker has it and the consumer has acknowledged it (no ack of the ack)",
        ("nats",), ("nats-py",), "nats-server",
    ),
    "JetStream file": Contender(
        "jetstream", "as JetStream, with file storage", ("nats",), ("nats-py",), "nats-server",
    ),
    "mosquitto QoS 1": Contender(
        "mosquitto",
        "paho-mqtt, QoS 1, inflight windows of 1,000 there and unlimited at the broker, no persistence; counted when "
        "the broker has acknowledged it and the subscriber's callback has run",
        ("paho",), ("paho-mqtt",), "mosquitto",
    ),
    "mosquitto persistent": Contender(
        "mosquitto_persistent",
        "as mosquitto QoS 1, with persistence: the broker writes what it holds when it ends and every 30 minutes (its "
        "default), and syncs nothing for a message",
        ("paho",), ("paho-mqtt",), "mosquitto",
    ),
    "Redis streams": Contender(
        "redis_streams",
        "XADD in pipelines of 100, XREADGROUP COUNT 100, XACK of each batch, no persistence, hiredis; counted when the "
        "broker has it and the reader's XACK is answered",
        ("redis",), ("redis",), "redis-server",
    ),
    "raw sockets": Contender(
        "raw_sockets",
        "a limit: blocking sockets, a length before each message, one sendall a message, read in pieces of 64 KiB, "
        "from that size on straight into a buffer for each message; acknowledges nothing",
    ),
    "asyncio.Protocol": Contender(
        "asyncio_protocol",
        "a limit: a length before each message, one transport.write a message, the sender heeds pause_writing; "
        "acknowledges nothing",
    ),
}


def module_of(contender: str, adapter: str) -> str:
    """The module that plays a contender."""
    if contender == NETWORKIO:
        return f"benchmarks.peers.networkio_{'threads' if adapter == 'threads' else 'asyncio'}"
    return f"benchmarks.peers.{PEERS[contender].module}"


def program(name: str) -> str | None:
    """Where a server's program is; Debian keeps servers where a user's PATH may not look."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(name, path=os.pathsep.join([path, "/usr/sbin", "/usr/local/sbin"]))
