"""What tests of the core share: a pair of connected hosts, and the frames in a piece of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from struct import unpack_from

from networkio_proto import Config
from networkio_proto.frames import PREAMBLE
from networkio_testing.world import Wire, World

__all__ = ["Frame", "frames", "live", "pair"]


def pair(config: Config | None = None, *, b: Config | None = None, seed: int = 0, connected: bool = True) -> World:
    """A world with the hosts "a", which dials, and "b", the arbiter; ``b`` is b's configuration if it is another.

    They are connected and have nothing more to say, unless ``connected`` is false: then nobody dialled yet.
    """
    world = World(seed)
    dialer = world.host("a", config)
    world.host("b", config if b is None else b)
    if connected:
        dialer.dial("b")
        world.run(1.0)
        live(world)
    return world


def live(world: World, a: str = "a", b: str = "b") -> Wire:
    """The wire on which both hosts are live; there must be one."""
    wire = world.live(a, b)
    assert wire is not None
    return wire


@dataclass(frozen=True)
class Frame:
    """One frame as it stands in a stream."""

    kind: int
    flags: int
    body: bytes

    def u64(self, index: int = 0) -> int:
        """The u64 at a place of the body, counted in u64s."""
        value: int = unpack_from(">Q", self.body, 8 * index)[0]
        return value


def frames(data: bytes | bytearray) -> list[Frame]:
    """The frames of a stretch of a stream that begins and ends with a frame's bounds; a preamble is passed over."""
    found = []
    position = len(PREAMBLE) if data[: len(PREAMBLE)] == PREAMBLE else 0
    while position < len(data):
        length, kind, flags = unpack_from(">IBB", data, position)
        end = position + 4 + length
        assert end <= len(data), "the stretch ends inside of a frame"
        found.append(Frame(kind, flags, bytes(data[position + 6 : end])))
        position = end
    return found
