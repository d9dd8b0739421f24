"""One process of a siege: a node that is besieged, or one that wants in.  Told what to do line by line, in JSON.

    python -m tests.hostile.side server ADAPTER CONFIG CERTIFICATES
    python -m tests.hostile.side client ADDRESS PORT CERTIFICATES

The server answers requests, and says what it costs.  The client has a session of its own, over which it asks, and makes
new ones; it says how long both took.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkio_asyncio
import networkio_threads
from networkio_asyncio import Config
from networkio_tls import TLS

PAGE = resource.getpagesize()


def tls_of(directory: str, peer_id: str) -> TLS | None:
    """What a node of that name uses, if there are certificates at all."""
    if not directory:
        return None
    place = Path(directory)
    return TLS(place / f"{peer_id}.pem", place / f"{peer_id}.key", authority=place / "authority.pem")


#: processor time that went into looking, and not into the node (seconds): a full collection alone takes tens of
#: milliseconds where thousands of connections are held
_looking = 0.0


def costs(node: Any) -> dict[str, float]:
    """Memory (bytes), processor (seconds; without that of these looks), and what the node itself counts."""
    global _looking
    processor, begin = time.process_time() - _looking, time.thread_time()  # the node's thread may go on meanwhile
    figures = look(node)
    _looking += time.thread_time() - begin
    return figures | {"processor": processor}


def look(node: Any) -> dict[str, float]:
    """All but the processor."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
    return {
        "resident": resident, "pending": node.endpoint.handshakes,
        "peers": len(node.peers), "descriptors": len(os.listdir("/proc/self/fd")),
    }  # fmt: skip


def say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


async def serve_asyncio(config: Config, tls: TLS | None) -> None:
    async def answer(message: networkio_asyncio.Message) -> None:
        await message.reply(message.data)

    async with networkio_asyncio.Node("server", config=config, tls=tls) as node:
        listener = await node.listen("127.0.0.1", 0)
        say({"port": listener.port})
        serving = asyncio.create_task(node.serve(answer))
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            say(costs(node))
        serving.cancel()


def serve_threads(config: Config, tls: TLS | None) -> None:
    def answer(message: networkio_threads.Message) -> None:
        message.reply(message.data)

    with networkio_threads.Node("server", config=config, tls=tls) as node:
        say({"port": node.listen("127.0.0.1", 0).port})
        threading.Thread(target=node.serve, args=(answer,), daemon=True).start()
        while sys.stdin.readline():
            say(costs(node))


def quantiles(times: list[float]) -> dict[str, float]:
    """In milliseconds."""
    times.sort()
    return {name: round(times[int(len(times) * share)] * 1000, 2) for name, share in (("p50", 0.5), ("p99", 0.99))}


async def timed(count: int, call: Callable[[int], Any]) -> dict[str, float]:
    times = []
    for number in range(count):
        begin = time.perf_counter()
        await call(number)
        times.append(time.perf_counter() - begin)
    return quantiles(times)


async def want_in(host: str, port: int, certificates: str) -> None:
    config = Config(backoff_max=0.5, drain_timeout=0.5, linger=0.2)

    async def come(number: int) -> None:
        """A newcomer: connected, and answered."""
        name = f"new-{number % 4}"
        async with networkio_asyncio.Node(name, config=config, tls=tls_of(certificates, name)) as node:
            peer = await node.connect(host, port, "server")
            await peer.request("x", 30)

    async with networkio_asyncio.Node("client", config=config, tls=tls_of(certificates, "client")) as node:
        peer = await node.connect(host, port, "server")
        await peer.request("x", 30)
        say({"ready": True})
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asks, comes = json.loads(line)
            answered = await timed(asks, lambda number: peer.request(number, 30))
            say({"answered": answered, "let_in": await timed(comes, come) if comes else None})


def main() -> None:
    role, *rest = sys.argv[1:]
    if role == "client":
        host, port, certificates = rest
        asyncio.run(want_in(host, int(port), certificates))
        return
    adapter, settings, certificates = rest
    config, tls = Config(**json.loads(settings)), tls_of(certificates, "server")
    if adapter == "asyncio":
        asyncio.run(serve_asyncio(config, tls))
    else:
        serve_threads(config, tls)


if __name__ == "__main__":
    main()
