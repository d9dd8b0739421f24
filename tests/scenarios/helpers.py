"""What the scenarios share: two judged nodes, a disk under a node, and a way to take one rule out of the core.

A :class:`Scene` is the usual world: "a" dials "b", "b" is the arbiter, a ``Judge`` watches both, and their applications
read by :meth:`Scene.read`.  A :class:`Disk` is the journal of a host as the list of records that it would hold; a judge
knows nothing of journals, so worlds with disks have none.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterable
from types import CodeType, FunctionType
from typing import Any

import pytest

from networkio_proto import Config, Delivery, Endpoint, Outcome, Session
from networkio_proto.journal import JournalRecord
from networkio_testing import Host, Judge, Wire, World
from tests.broken import ROOT

__all__ = ["Disk", "Scene", "drop_rule", "flags", "outcomes", "payloads", "redelivered", "repeated"]


class Scene:
    """A world with the nodes "a", which dials, and "b", and a judge; ``b`` is b's configuration if it is another."""

    def __init__(
        self, config: Config | None = None, *, b: Config | None = None, connected: bool = True, seed: int = 0
    ) -> None:
        self.world = World(seed)
        self.judge = Judge(self.world)
        self.a = self.world.host("a", config)
        self.b = self.world.host("b", config if b is None else b)
        #: what the applications took, in order
        self.heard: dict[str, list[Delivery]] = {"a": [], "b": []}
        if connected:
            self.a.dial("b")
            self.world.run(1.0)

    @property
    def wire(self) -> Wire:
        """The wire on which both are live."""
        wire = self.world.live("a", "b")
        assert wire is not None
        return wire

    def read(self) -> None:
        """Both applications take everything that is there and acknowledge it."""
        for host, peer in ((self.a, "b"), (self.b, "a")):
            if not host.up:
                continue
            while taken := host.take(peer, 100):
                for delivery in taken:
                    host.settle(peer, delivery)
                self.heard[host.name] += taken

    def rest(self, seconds: float = 60.0) -> None:
        """Everything goes right for so long and both applications read; then nothing is left anywhere."""
        for _ in range(3):
            self.world.run(seconds / 3)
            self.read()
        self.world.run(1.0)
        self.judge.at_rest()

    def got(self, name: str = "b") -> list[bytes]:
        """The payloads that one application took so far."""
        return payloads(self.heard[name])


class Disk:
    """The journal of one host: what was written survives its process, what was only asked for does not.

    ``sync``: every batch is written at once; else :meth:`write` does it.  ``records`` may be copied and put back.
    """

    def __init__(self, host: Host, records: Iterable[JournalRecord] = (), *, sync: bool = True) -> None:
        self.host = host
        self.records = list(records)
        self.sync = sync
        self._boot()
        host.on_pump = self._serve

    def _boot(self) -> None:
        host = self.host
        source = random.Random(f"{host.world.seed}/{host.name}/{host.lives}")
        host.endpoint = Endpoint(host.peer_id, host.config, random=source, journal=True)
        host.endpoint.restore(list(self.records), host.world.now)

    def _serve(self, _: Host) -> None:
        if self.sync:
            self.write()

    def write(self) -> int:
        """Make everything durable that is asked for; how many records it was."""
        count = 0
        while (batch := self.host.endpoint.journal_request()) is not None:
            self.records += batch.records
            count += len(batch.records)
            self.host.endpoint.journal_done(batch.token, self.host.world.now)
            self.host.pump()
        return count

    def fail(self, error: OSError) -> None:
        """What is asked for cannot be written."""
        batch = self.host.endpoint.journal_request()
        assert batch is not None
        self.host.endpoint.journal_done(batch.token, self.host.world.now, error)
        self.host.pump()

    def restart(self, records: Iterable[JournalRecord] | None = None) -> None:
        """The process dies, and a new one starts over what is on the disk, or over ``records`` in its place."""
        self.host.crash()
        if records is not None:
            self.records = list(records)
        self.host.lives += 1
        self.host.up = True
        self.host.notices.clear()
        self._boot()
        self.host.pump()


def payloads(deliveries: Iterable[Delivery]) -> list[bytes]:
    """What was said."""
    return [delivery[2] for delivery in deliveries]


def redelivered(delivery: Delivery) -> bool:
    """Is it flagged?"""
    return delivery[4] is not None and delivery[4].redelivered


def flags(deliveries: Iterable[Delivery]) -> list[bool]:
    """Which of them are flagged."""
    return [redelivered(delivery) for delivery in deliveries]


def outcomes(session: Session, sequences: Iterable[int]) -> list[Outcome | None]:
    """What became of these messages."""
    return [session.outcome(sequence) for sequence in sequences]


def repeated(deliveries: Iterable[Delivery]) -> set[bytes]:
    """Payloads that were taken more than once."""
    found = payloads(deliveries)
    return {payload for payload in found if found.count(payload) > 1}


# -- without a rule ---------------------------------------------------------------------------------------------------


def drop_rule(monkeypatch: pytest.MonkeyPatch, edits: Iterable[tuple[str, str, str]]) -> None:
    """Run the core with other text in its functions, in this process, until ``monkeypatch`` undoes it.

    As ``tests.broken.break_core`` edits: in each module a text stands once, and becomes another.  It costs no process
    of its own, and reaches functions only.
    """
    for name, old, new in edits:
        path = ROOT / "networkio_proto" / f"{name}.py"
        source = path.read_text()
        assert source.count(old) == 1, old
        module = importlib.import_module(f"networkio_proto.{name}")
        codes = dict(_codes(compile(source.replace(old, new), str(path), "exec", dont_inherit=True)))
        changed = 0
        for function in _functions(module):
            code = codes.get(function.__qualname__)
            if code is not None and code.co_code + _constants(code) != function.__code__.co_code + _constants(
                function.__code__
            ):
                monkeypatch.setattr(function, "__code__", code)
                changed += 1
        assert changed, f"no function of {name} changed"


def _codes(code: CodeType) -> Iterable[tuple[str, CodeType]]:
    """The functions in a module's code, by their qualified names."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant.co_qualname, constant
            yield from _codes(constant)


def _constants(code: CodeType) -> bytes:
    """What distinguishes code beside its instructions."""
    inner = [_constants(item) if isinstance(item, CodeType) else repr(item).encode() for item in code.co_consts]
    return b"|".join([*inner, *(name.encode() for name in code.co_names)])


def _functions(module: Any) -> Iterable[FunctionType]:
    """All functions that a module defines, those of its classes included."""
    for value in vars(module).values():
        inside = vars(value).values() if isinstance(value, type) and value.__module__ == module.__name__ else [value]
        for item in inside:
            if isinstance(item, property):
                item = item.fget
            if isinstance(item, (staticmethod, classmethod)):
                item = item.__func__
            if isinstance(item, FunctionType) and item.__module__ == module.__name__:
                yield item
