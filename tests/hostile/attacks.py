"""What strangers can do to a node before they have proved anything, in figures: memory, processor, other people's time.

Theory of operation
-------------------
A node listens in a process of its own, another process plays its honest peers.  This one attacks, with plain sockets
from many loopback addresses, for the node counts strangers by their source.  Each attack returns figures, and raises
AssertionError where they break what is promised.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from networkio_proto.config import Limits
from networkio_proto.frames import PREAMBLE
from networkio_proto.handshake import VERSION, Hello, PeerLimits, encode_hello

__all__ = ["Figures", "Siege", "besieged", "flood", "held", "silent"]

ROOT = Path(__file__).parents[2]

Figures = dict[str, Any]


class Side:
    """One process of tests.hostile.side."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.side", *arguments],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.first = self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "a process of the siege has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, what: object = None) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def end(self) -> None:
        self._process.communicate(timeout=30)


class Siege:
    """A node, an honest peer of it, and the sockets of those who attack."""

    def __init__(self, adapter: str, settings: dict[str, Any], certificates: str) -> None:
        self.settings = settings
        self.server = Side("server", adapter, json.dumps(settings), certificates)
        self.port: int = self.server.first["port"]
        self.client = Side("client", "127.0.0.1", str(self.port), certificates)
        self.sockets: list[socket.socket] = []

    def come(self, number: int) -> socket.socket | None:
        """A stranger's connection, from one of many addresses; None if there is no getting through."""
        sock = socket.socket()
        sock.bind((f"127.0.{1 + number // 200 % 200}.{1 + number % 200}", 0))
        sock.settimeout(5)
        try:
            sock.connect(("127.0.0.1", self.port))
        except OSError:
            sock.close()
            return None
        self.sockets.append(sock)
        return sock

    def leave(self) -> None:
        """All of them go."""
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()

    def wait_for(self, pending: int) -> dict[str, Any]:
        """Until the node has so many handshakes under way; what it costs then."""
        for _ in range(200):
            costs = self.server.ask()
            if costs["pending"] == pending:
                return costs
            time.sleep(0.05)
        raise AssertionError(f"{costs['pending']} handshakes are under way, not {pending}")


@contextmanager
def besieged(adapter: str, certificates: str = "", **settings: Any) -> Iterator[Siege]:
    """A siege, which is over in the end."""
    siege = Siege(adapter, settings, certificates)
    try:
        yield siege
    finally:
        siege.leave()
        siege.client.end()
        siege.server.end()


def _hello(number: int) -> bytes:
    """What a newcomer says first; afterwards it says nothing."""
    limits = Limits()
    nonce = number.to_bytes(32, "big")
    hello = Hello(
        versions=(VERSION, VERSION), peer_id=f"stranger-{number}", to="server", incarnation=nonce[-16:], dial=1,
        nonce=nonce, features=(), require=(), auth="insecure", key_id=None,
        limits=PeerLimits(limits.frame, limits.message, 45.0), codec="msgpack",
    )  # fmt: skip
    return PREAMBLE + encode_hello(hello)


def silent(siege: Siege, count: int, *, speaking: bool) -> Figures:
    """So many connect and wait, saying nothing or HELLO: what one of them costs."""
    before = siege.server.ask()
    for number in range(count):
        sock = siege.come(number)
        assert sock is not None
        if speaking:
            sock.sendall(_hello(number))
    during = siege.wait_for(count)
    figures = {
        "connections": count,
        "bytes_each": round((during["resident"] - before["resident"]) / count),
        "microseconds_each": round((during["processor"] - before["processor"]) / count * 1e6),
    }
    siege.leave()
    siege.wait_for(0)
    return figures


def held(siege: Siege, count: int, asks: int = 1000, comes: int = 100) -> Figures:
    """So many say HELLO and then nothing, each from an address of its own: what honest peers notice of it.

    They are as old as a handshake may be when the honest are asked, for then the node lets go of them, too.
    """
    calm = siege.client.ask((asks, comes))
    for number in range(count):
        if (sock := siege.come(number)) is not None:
            sock.sendall(_hello(number))
    under_way = siege.server.ask()["pending"]
    time.sleep(float(siege.settings.get("handshake_timeout", 5.0)) / 2)
    return {"held": len(siege.sockets), "pending": under_way, "calm": calm, "stormy": siege.client.ask((asks, comes))}


def flood(siege: Siege, rate: int, seconds: float) -> Figures:
    """So many newcomers a second: some say nothing, some HELLO, some nonsense, and most are gone at once."""
    before = siege.server.ask()
    begin = time.monotonic()
    peak, done, kept = before["resident"], 0, 0
    while (passed := time.monotonic() - begin) < seconds:
        while done < passed * rate:
            sock = siege.come(done)
            if sock is not None:
                if done % 3:
                    sock.sendall(_hello(done) if done % 3 == 1 else b"GET / HTTP/1.1\r\n\r\n")
                if done % 10:
                    siege.sockets.remove(sock)
                    sock.close()
                else:
                    kept += 1
            done += 1
        while len(siege.sockets) > 2000:
            siege.sockets.pop(0).close()
        peak = max(peak, siege.server.ask()["resident"])
    answered = siege.client.ask((100, 0))["answered"]
    siege.leave()
    siege.wait_for(0)
    after = siege.server.ask()
    mib = 1024 * 1024
    return {
        "connections": done, "a_second": round(done / seconds), "kept": kept, "answered": answered,
        "peak_mib": round((peak - before["resident"]) / mib, 1),
        "left_mib": round((after["resident"] - before["resident"]) / mib, 1),
        "left_descriptors": after["descriptors"] - before["descriptors"],
    }  # fmt: skip
