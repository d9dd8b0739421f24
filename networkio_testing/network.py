"""A breakable network, in words: what both of the networks that users test their code on have in common.

Theory of operation
-------------------
A :class:`Network` knows its nodes by name, and which of them are cut off from each other, refuse dials, or are far
away.  What carries bytes is not its business: a subclass hands it the open *wires* (:class:`BreakableWire`), asks it
whether two nodes are :meth:`~Network.apart` and how far they are from each other, and tells it what is written.

:class:`~networkio_testing.simulated.SimulatedNetwork` breaks the wires of the simulated world, whose nodes are the bare
core; :class:`~networkio_testing.virtual.VirtualNetwork` those between nodes of ``networkio_asyncio``.

A partition and a hole look the same from inside, until they end.  Bytes that a partition stops wait, as TCP would send
them again, and arrive when it is healed, on the same connection if its ends have not given it up; so does the news that
a connection was cut or a process has died.  A hole is for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from math import inf
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from networkio_proto.errors import printable
from networkio_proto.nodes import NodeHandle

from .world import CUTS, Cut

__all__ = ["BreakableWire", "Name", "Network", "Unfinished"]

#: a node, or what it is called
Name: TypeAlias = "str | NodeHandle[Any]"


class Unfinished(AssertionError):
    """A test is over, and something is left: a message that nobody took, settled, or read."""


class BreakableWire(Protocol):
    """One connection of a network."""

    @property
    def names(self) -> tuple[str, str]:
        """Who dialled, and who accepted."""
        ...

    def snap(self, end: int, how: Cut) -> None:
        """Break it; ``end`` is the one that learns it when only one does."""
        ...

    def hold(self, on: bool) -> None:
        """Let nothing arrive from now on, until it may again."""
        ...


W = TypeVar("W", bound=BreakableWire)


class Network(Generic[W]):
    """The words in which a network is broken and mended.  Wherever a node is asked for, its name does as well."""

    def __init__(self, seed: int) -> None:
        #: what all randomness in it comes from
        self.seed = seed
        #: is something left at the end a failure of the test?
        self.strict = True
        self._groups: list[frozenset[str]] = []
        self._refusing: set[str] = set()
        self._delays: dict[frozenset[str], float] = {}
        self._delay = 0.0
        self._digest = hashlib.blake2b(digest_size=16)

    # -- the subclass's part ----------------------------------------------------------------------------------------

    def breakable(self) -> list[W]:
        """The wires that are open."""
        raise NotImplementedError

    def known(self) -> Collection[str]:
        """The names of all nodes there have been."""
        raise NotImplementedError

    # -- breaking and mending ---------------------------------------------------------------------------------------

    def cut(self, a: Name | None = None, b: Name | None = None, how: Cut = "rst") -> int:
        """Break the connections between two nodes (or all of one, or all there are); returns how many.

        ``rst``: both learn it at once, and bytes under way are gone.  ``fin``: those arrive first.  ``half``: only
        ``a`` learns it (without ``a``: who dialled).  ``late``: the same, and what it said comes three seconds late.
        ``hole``: neither learns it, and nothing arrives any more.

        The news passes no partition: of the connections between its parts only ``a`` (or who dialled) learns it now,
        and the other one, after the bytes that an orderly end lets arrive, when it is healed.
        """
        if how not in CUTS:
            raise ValueError(f"a connection is cut in one of the ways {', '.join(CUTS)}, not {how!r}")
        wanted = {self.name_of(name) for name in (a, b) if name is not None}
        wires = [wire for wire in self.breakable() if wanted <= set(wire.names)]
        for wire in wires:
            wire.snap(wire.names.index(self.name_of(a)) if a is not None else 0, how)
        return len(wires)

    def refuse(self, node: Name, on: bool = True) -> None:
        """Nobody listens there: whoever dials it is refused; ``on=False``: it listens again."""
        (self._refusing.add if on else self._refusing.discard)(self.name_of(node))

    def partition(self, *groups: Name | Iterable[Name]) -> None:
        """Nothing passes between these groups of nodes, and dials get no answer, until :meth:`heal`.

        A group may be a single node.  Those that are not named are a group of their own.  A new partition takes the
        place of the old one.
        """
        self._groups = [
            frozenset(map(self.name_of, [group] if isinstance(group, (str, NodeHandle)) else group)) for group in groups
        ]
        self._regroup()

    def heal(self) -> None:
        """The partition is over, nobody refuses any more, nobody is far away; what was cut stays cut."""
        self._groups.clear()
        self._refusing.clear()
        self._delays.clear()
        self._delay = 0.0
        self._regroup()

    def delay(self, seconds: float, a: Name | None = None, b: Name | None = None) -> None:
        """What is written from now on takes so long to arrive: between two nodes, or (without them) everywhere."""
        if not 0 <= seconds < inf:
            raise ValueError(f"a delay is a number of seconds, not {seconds}")
        if a is not None and b is not None:
            self._delays[frozenset((self.name_of(a), self.name_of(b)))] = seconds
        elif a is None and b is None:
            self._delays.clear()
            self._delay = seconds
        else:
            raise ValueError("a delay is between two nodes, or everywhere: name both or none")

    def _regroup(self) -> None:
        for wire in self.breakable():
            wire.hold(self.apart(*wire.names))

    # -- what the wires ask -----------------------------------------------------------------------------------------

    def name_of(self, node: Name) -> str:
        """What it is called; raises ValueError if there is no such node."""
        name = node if isinstance(node, str) else node.id
        if name not in self.known():
            raise ValueError(f"there is no node {printable(name)!r} here, only {', '.join(self.known()) or 'nothing'}")
        return name

    def refuses(self, name: str) -> bool:
        """Is whoever dials it refused?"""
        return name in self._refusing

    def apart(self, a: str, b: str) -> bool:
        """Are they in different parts of a partition?"""
        return any((a in group) != (b in group) for group in self._groups)

    def distance(self, a: str, b: str) -> float:
        """What a byte takes from one to the other (seconds)."""
        return self._delays.get(frozenset((a, b)), self._delay)

    # -- how it was -------------------------------------------------------------------------------------------------

    def note(self, now: float, source: str, target: str, data: bytes) -> None:
        """Something was written to a wire."""
        self._digest.update(f"{now!r} {source} {target} {len(data)} ".encode())
        self._digest.update(data)

    @property
    def fingerprint(self) -> str:
        """Every byte written so far, by whom, to whom and when, as one hash: that of the same run is the same."""
        return self._digest.hexdigest()

    # -- the end ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise Unfinished if something is left anywhere; see :attr:`strict`."""
        raise NotImplementedError

    def check_finished(self, nodes: Iterable[NodeHandle[Any]]) -> None:
        """Raise Unfinished, which lists what is left at these nodes."""
        left = [line for node in nodes for peer in node.endpoint.sessions for line in _left(node, peer)]
        if left and self.strict:
            lines = "".join(f"\n  {line}" for line in left)
            raise Unfinished(
                f"the test is over, and something is left (network.strict = False lets it be; seed {self.seed}):{lines}"
            )


def _left(node: NodeHandle[Any], peer: str) -> Iterable[str]:
    session = node.endpoint.sessions[peer]
    if session.held:
        yield f"{node.id} took {_messages(session.held)} of {peer} and did not settle: ack, reject or release"
    if session.unread:
        yield f"{node.id} did not take {_messages(session.unread)} of {peer}"
    if session.unacknowledged:
        why = "it was closed before" if node.closed else session.why(node.time)
        yield f"{node.id} does not know what became of {_messages(session.unacknowledged)} to {peer}: {why}"


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"
