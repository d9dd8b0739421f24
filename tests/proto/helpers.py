"""What tests of the core share: a pair of connected hosts or nodes, operations under way, the frames in a stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import unpack_from
from typing import Any, Generic, TypeVar

from networkio_proto import Config, MsgpackCodec
from networkio_proto.frames import PREAMBLE
from networkio_proto.nodes import NodeHandle
from networkio_proto.operations import Operation
from networkio_testing.node import Flag, SimulatedNode, SimulatedPeer
from networkio_testing.world import Wire, World

__all__ = ["Frame", "Moody", "Two", "Waiting", "frames", "live", "pair", "two"]

T = TypeVar("T")


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


@dataclass
class Two:
    """The two nodes of a pair, as applications see them, and the other one at each of them."""

    world: World
    a: SimulatedNode
    b: SimulatedNode
    #: b, as a sees it
    to_b: SimulatedPeer
    #: a, as b sees it
    to_a: SimulatedPeer

    def left(self) -> list[object]:
        """Whoever still waits for something."""
        found: list[object] = []
        for node, peer in ((self.a, self.to_b), (self.b, self.to_a)):
            found += [*node._watchers, *peer._waiters, *peer.session.receipts.all(), *peer.session.requests.all()]
            found += list(peer.session.requests._waiting.values())
        return found


def two(config: Config | None = None, *, b: Config | None = None, connected: bool = True, seed: int = 0) -> Two:
    """A pair whose hosts are driven by nodes."""
    world = pair(config, b=b, connected=connected, seed=seed)
    left, right = SimulatedNode(world.hosts["a"]), SimulatedNode(world.hosts["b"])
    for host in world.hosts.values():
        host.notices.clear()
    return Two(world, left, right, left.peer("b"), right.peer("a"))


class Moody(MsgpackCodec):
    """The codec, which counts what it encodes, and raises the error that a mood is when it decodes one."""

    def __init__(self, **moods: BaseException) -> None:
        super().__init__()
        self._moods = moods
        self.encoded = 0

    def encode(self, obj: object) -> bytes:
        self.encoded += 1
        return super().encode(obj)

    def decode(self, data: bytes | memoryview) -> object:
        obj = super().decode(data)
        if isinstance(obj, str) and obj in self._moods:
            raise self._moods[obj]
        return obj


class Waiting(Generic[T]):
    """An operation that was begun, and is resumed, timed out or cancelled by hand; the world stands still meanwhile."""

    def __init__(self, node: NodeHandle[Any], operation: Operation[T]) -> None:
        self.node = node
        self._operation = operation
        self.flag: Flag | None = None
        self.over = False
        self._result: Any = None
        self._error: Exception | None = None
        self._go_on(operation.__next__)

    def _go_on(self, how: Callable[[], Any]) -> None:
        self.node.enter()
        try:
            self.flag = how()
        except StopIteration as done:
            self.over, self._result = True, done.value
        except Exception as error:
            self.over, self._error = True, error
        finally:
            self.node.leave()

    @property
    def woken(self) -> bool:
        """Was it told to look again?"""
        return self.flag is not None and self.flag.is_set

    @property
    def result(self) -> T:
        """What it returned, or raises what it raised; it must be over."""
        assert self.over
        if self._error is not None:
            raise self._error
        result: T = self._result
        return result

    def look(self) -> Waiting[T]:
        """As a driver does when it was woken: resume it."""
        while self.woken and not self.over:
            self._go_on(self._operation.__next__)
        return self

    def time_up(self) -> Waiting[T]:
        """As a driver does at the deadline."""
        self._go_on(lambda: self._operation.throw(TimeoutError("not within 1 s")))
        return self

    def cancel(self) -> None:
        """As a driver does when its caller was cancelled."""
        self.over = True
        self._go_on(self._operation.close)


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
