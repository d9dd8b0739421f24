"""What tests of sessions share: two hosts with a wire between them, and what is said on it.

In most tests "a" dials and "b" accepts; "b" is the arbiter.  A wire's bytes wait until somebody delivers them, so that
what a side says can be read off the wire before the other hears it.
"""

from __future__ import annotations

from struct import unpack_from
from typing import TypeVar

from networkio_proto import Config, Delivery, PeerConnected, Wake
from networkio_proto.frames import ACK
from networkio_testing.world import Host, Wire, World
from tests.proto.helpers import Frame, frames, live, pair

__all__ = [
    "ACCEPTOR",
    "DIALER",
    "KIB",
    "acks",
    "hear",
    "hosts",
    "inject",
    "kinds",
    "noticed",
    "one",
    "payloads",
    "promised",
    "quiet_pair",
    "reconnect",
    "restart",
    "rooms",
    "said",
    "step",
    "until_live",
    "verdict",
]

DIALER, ACCEPTOR = 0, 1  # the ends of a wire: a's and b's

KIB = 1024


def hosts(world: World) -> tuple[Host, Host]:
    return world.hosts["a"], world.hosts["b"]


def said(world: World, end: int) -> list[Frame]:
    """What an end of the live wire has said and the other not heard yet."""
    return frames(live(world).pipes[end].data)


def kinds(found: list[Frame]) -> list[int]:
    return [frame.kind for frame in found]


def acks(world: World, end: int) -> list[tuple[int, ...]]:
    """(received, read, credit, first) of the ACKs among it."""
    return [unpack_from(">QQQQ", frame.body) for frame in said(world, end) if frame.kind == ACK]


def hear(world: World, end: int) -> None:
    """The other end hears everything that this one has said."""
    live(world).deliver(end)


def inject(world: World, end: int, frame: bytes) -> None:
    """Let the other end hear a frame that this one never said."""
    wire = live(world)
    wire.replay(end, frame)
    wire.deliver(end)


def one(host: Host, peer: str) -> Delivery:
    (delivery,) = host.take(peer)
    return delivery


def payloads(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery[2] for delivery in deliveries]


Kind = TypeVar("Kind")


def noticed(host: Host, kind: type[Kind]) -> list[Kind]:
    """The notices of a kind that the application took, oldest first; they are forgotten."""
    found: list[Kind] = [notice for notice in host.notices if isinstance(notice, kind)]
    host.notices = [notice for notice in host.notices if not isinstance(notice, kind)]
    return found


def reconnect(world: World) -> None:
    """Until the two are live again."""
    world.run(60.0)
    live(world)


def rooms(host: Host) -> list[str]:
    """Whom the driver is told to look at, of those who wait for room; taken from the effects."""
    woken = []
    while (effect := host.endpoint.next_effect()) is not None:
        if isinstance(effect, Wake) and effect.session is not None:
            woken.append(effect.session.peer_id)
    return woken


def quiet_pair(config: Config | None = None, *, b: Config | None = None) -> World:
    """A pair of which "a" has just sent a small message that "b" read, and that says nothing any more."""
    world = pair(config, b=b)
    first, second = hosts(world)
    first.send("b", b"hello")
    world.run(0.01)
    second.read("a")
    world.run(1.0)
    assert said(world, DIALER) == said(world, ACCEPTOR) == []
    return world


def step(world: World, order: tuple[int, int] = (0, 1)) -> bool:
    """Let one frame arrive, or if none is under way, let time pass until the next timer; False once nothing is left.

    Dials are answered at once.  ``order``: which end of a wire goes first.
    """
    for host in world.hosts.values():
        host.answer_dials()
    for wire in world.open_wires():
        for end in order:
            pipe = wire.pipes[end]
            if pipe.black_hole:
                continue
            if pipe.data:
                size = 8 if pipe.delivered == 0 else 4 + int.from_bytes(pipe.data[:4], "big")
                wire.deliver(end, size)
                return True
            if pipe.fin:
                wire.deliver(end)
                return True
    if world.next_timer() > world.now + 120.0:
        return False
    world.advance(world.next_timer() - world.now + 1e-6)
    return True


def until_live(world: World) -> Wire:
    """Frame by frame until the two are live, and no further."""
    for _ in range(1000):
        if (wire := world.live("a", "b")) is not None:
            return wire
        assert step(world)
    raise AssertionError("they do not get together")


def promised(host: Host, peer: str) -> int:
    """The credit that a host's peer has left, as the host told it."""
    inbox = host.session(peer).inbox
    assert inbox is not None
    return inbox.allowed - inbox.used


def restart(host: Host) -> None:
    """A new process, which dials again if it is "a"."""
    host.restart()
    if host.name == "a":
        host.dial("b")


def verdict(host: Host) -> str:
    """The last one of a host on its own outbox."""
    return noticed(host, PeerConnected)[-1].resumed.verdict
