"""``networkio ping``: who is there, and how long a message and its acknowledgement take.

Theory of operation
-------------------
A ping is a message like any other: it has a place in the outbox, and is read by the application at the other end, which
knows it by its header and shows it to nobody.  So what is measured is what the application's own messages would take.
"""

from __future__ import annotations

import math
import statistics

from networkio_proto import DeliveryFailure

from ._bridge import open_node
from ._dial import Link, meet
from ._terminal import INTERRUPTED, Interrupted, Interrupts, StatusLine
from ._trust import Trust

__all__ = ["PING", "run", "summary"]

#: the headers by which ``networkio listen`` and ``networkio chat`` know a ping
PING = {"networkio": "ping"}

#: the version of the wire protocol; a node that speaks another one cannot be connected to
_PROTOCOL = 1


def run(
    adapter: str,
    address: tuple[str, int],
    peer_id: str,
    *,
    to: str | None,
    count: int,
    interval: float,
    timeout: float,
    trust: Trust,
) -> int:
    """The ``ping`` command; returns its exit code.  Raises NetworkioError."""
    status = StatusLine()
    trips: list[float] = []
    sent = 0
    with Interrupts() as interrupts, open_node(adapter, peer_id, trust=trust) as node:
        try:
            peer = meet(node, address, to, interrupts, status)
            link = Link(node, peer, status)
            host, port = address
            print(f"{peer.id} at {host} port {port}: protocol {_PROTOCOL}, process {peer.incarnation[:8]}", flush=True)
            for number in range(1, count + 1):
                if sent:
                    interrupts.sleep(interval)
                trip = peer.round_trip(None, PING, timeout)
                sent += 1
                try:
                    while (seconds := interrupts.join(trip)) is None:
                        link.look()
                except (TimeoutError, DeliveryFailure):
                    print(f"{number}: not read within {timeout:g} s: {peer.why()}", flush=True)
                else:
                    trips.append(seconds)
                    print(f"{number}: {1000 * seconds:.3f} ms", flush=True)
        except Interrupted:
            status.say(f"interrupted: {summary(sent, trips)}")
            return INTERRUPTED
        print(summary(sent, trips), flush=True)
        return int(len(trips) < sent)


def summary(sent: int, trips: list[float]) -> str:
    """How many came back, and how fast."""
    text = f"{sent:,} sent, {len(trips):,} read"
    if trips:
        ordered = sorted(trips)
        marks = {
            "min": ordered[0],
            "median": statistics.median(ordered),
            "p99": ordered[math.ceil(0.99 * len(ordered)) - 1],
        }
        text += "; " + ", ".join(f"{name} {1000 * seconds:.3f} ms" for name, seconds in marks.items())
    return text
