"""Many peers on one asyncio server, and a listener that goes away and comes back.

    python benchmarks/many_peers.py [--peers 5000] [--messages 10] [--json]

Two processes.  The server's one node and ``--peers`` client nodes exchange ``--messages`` messages both ways.  Then the
server closes its listener and breaks every connection without a word, both sides send as many messages again while
nothing is connected, and the listener comes back.  Every message is checked for order, loss and duplication at its
receiver.  Exit code 0 only when everything was read exactly once.

One process plays all the clients' machines.  So that it does not choke on itself, it makes at most ``DIALS`` TCP
connections at the same time, as many machines would by being many, and the server's cap per source address is lifted
to its cap in all.  Everything else is as it is by default.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread

from networkio_asyncio import Config, MessagesReady, Node, Peer

SERVER = "server-001"
DIALS = 100


class Check:
    """What came from one peer, in order and once."""

    def __init__(self) -> None:
        self.next: dict[str, int] = {}
        self.wrong = 0

    def take(self, peer: Peer) -> None:
        """Read everything that is there."""
        expected = self.next.get(peer.id, 0)
        while (number := peer.read_nowait(default=None)) is not None:
            self.wrong += number != expected
            expected = number + 1
        self.next[peer.id] = expected

    def done(self, peers: int, messages: int) -> bool:
        return len(self.next) >= peers and all(count >= messages for count in self.next.values())


async def collect(node: Node, check: Check, limit: float, done: Callable[[], bool]) -> None:
    """Read whatever comes until ``done``."""
    with anyio.move_on_after(limit):
        while not done():
            notice = await node.next_notice(0.5)
            if isinstance(notice, MessagesReady):
                check.take(notice.peer)


async def serve(peers: int, messages: int, limit: float) -> dict[str, Any]:
    """The server process: told what to do next by lines on its standard input."""
    check = Check()
    config = Config(drain_timeout=limit, max_pending_per_source=Config().max_pending)
    async with Node(SERVER, config=config) as node:
        listener = await node.listen("127.0.0.1", 0)
        port = listener.port
        say(port=port)
        await collect(node, check, limit, lambda: check.done(peers, messages))
        for peer in node.peers:
            for number in range(messages):
                await peer.send(number)
        await node.drain(limit)
        say(phase="exchanged")
        await anyio.to_thread.run_sync(sys.stdin.readline)
        await listener.aclose()
        for connection in node.endpoint.live():
            connection.connection_lost(node.enter(), ConnectionResetError("the cable was pulled"))
            node.leave()
        for peer in node.peers:
            for number in range(messages, 2 * messages):
                await peer.send(number)
        say(phase="away")
        await anyio.to_thread.run_sync(sys.stdin.readline)
        await node.listen("127.0.0.1", port)
        await collect(node, check, limit, lambda: check.done(peers, 2 * messages))
        ledger = await node.drain(limit)
        say(phase="resumed")
        await anyio.to_thread.run_sync(sys.stdin.readline)
    counts = list(check.next.values())
    return {
        "sent": ledger.accepted,
        "read": ledger.read,
        "received": sum(counts),
        "wrong": check.wrong,
        "connections": sum(session.connections for session in node.endpoint.sessions.values()),
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def say(**words: object) -> None:
    """To the other process."""
    print(json.dumps(words), flush=True)


async def run(peers: int, messages: int, limit: float) -> dict[str, Any]:
    """The client process, and the judge."""
    command = [sys.executable, __file__, "--serve", "--peers", str(peers), "--messages", str(messages)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    heard, tell = server.stdout, server.stdin

    async def listen_for(what: str) -> Any:
        line = await anyio.to_thread.run_sync(heard.readline, abandon_on_cancel=True)
        return json.loads(line)[what]

    def go_on() -> None:
        tell.write("\n")
        tell.flush()

    config = Config(dial_timeout=limit)  # waiting for one's turn counts
    nodes = [Node(f"client-{number}", config=config) for number in range(peers)]
    dials = anyio.Semaphore(DIALS)
    checks = {node.id: Check() for node in nodes}
    figures: dict[str, Any] = {"peers": peers, "messages": messages}
    try:
        async with anyio.create_task_group() as tasks:
            begin = time.perf_counter()
            port = await listen_for("port")
            stop = anyio.Event()
            for node in nodes:
                tasks.start_soon(client, node, port, dials, messages, checks[node.id], stop)
            await listen_for("phase")
            figures["exchange_seconds"] = round(time.perf_counter() - begin, 2)
            go_on()
            await listen_for("phase")
            for node in nodes:
                for number in range(messages, 2 * messages):
                    await node.send(SERVER, number)
            begin = time.perf_counter()
            go_on()
            await listen_for("phase")
            with anyio.move_on_after(limit):
                while any(node.peer(SERVER).unacknowledged for node in nodes):
                    await anyio.sleep(0.05)
            figures["resume_seconds"] = round(time.perf_counter() - begin, 2)
            ledgers = [node.ledger for node in nodes]
            stop.set()
            go_on()
        figures["server"] = json.loads(server.communicate(timeout=limit)[0].splitlines()[-1])
    finally:
        server.kill()
        server.wait()
        tell.close()
        heard.close()
    figures["sent"] = sum(ledger.accepted for ledger in ledgers) + figures["server"]["sent"]
    figures["read"] = sum(ledger.read for ledger in ledgers) + figures["server"]["read"]
    received = sum(check.next.get(SERVER, 0) for check in checks.values())
    figures["received"] = received + figures["server"]["received"]
    figures["wrong"] = sum(check.wrong for check in checks.values()) + figures["server"]["wrong"]
    figures["client_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    figures["server_mib"] = round(figures["server"]["mib"])
    figures["reconnects"] = figures["server"]["connections"] - peers
    del figures["server"]
    return figures


async def client(
    node: Node, port: int, dials: anyio.Semaphore, messages: int, check: Check, stop: anyio.Event
) -> None:
    """One of the many."""

    async def dial() -> anyio.abc.ByteStream:
        async with dials:
            return await anyio.connect_tcp("127.0.0.1", port)

    async with node, anyio.create_task_group() as tasks:
        peer = await node.connect_stream(dial, SERVER)
        for number in range(messages):
            await peer.send(number)
        tasks.start_soon(read_all, node, check)
        await stop.wait()
        tasks.cancel_scope.cancel()


async def read_all(node: Node, check: Check) -> None:
    async for notice in node.notifications():
        if isinstance(notice, MessagesReady):
            check.take(notice.peer)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=5000)
    parser.add_argument("--messages", type=int, default=10)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds that one phase may take")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, options.peers + 200)), hard))
    if options.serve:
        print(json.dumps(anyio.run(serve, options.peers, options.messages, options.limit)), flush=True)
        return 0
    figures = anyio.run(run, options.peers, options.messages, options.limit)
    expected = 4 * options.peers * options.messages
    good = figures["sent"] == figures["read"] == figures["received"] == expected and not figures["wrong"]
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>18}  {value}")
        print("nothing lost, nothing doubled" if good else f"WRONG: {expected} were expected")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
