"""The canonical conversation: everything that two nodes do with each other, in a script that goes on whatever happens.

Theory of operation
-------------------
The nodes "a", which dials, and "b", the arbiter, shake hands, say 20 messages each (one of b's goes in fragments, one
of a's is rejected), lose their connection with messages under way, resume, and end the session from both sides.  What
the two applications do is a row of :data:`STEPS`.  Between two steps the :class:`Conversation` itself moves bytes and
time, so that a test can interfere before any delivery (the ``hook``).

A conversation, its judge included, can be pickled, which is how a test branches off: :func:`dump` once before what is
to be varied, ``load`` for each variant, do the harm, then :meth:`Conversation.heal`, which plays the rest of the script
over a network in which nothing else goes wrong, and looks at the end.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from networkio_proto import Config, Delivery, Limits
from networkio_proto.auth import Authenticator
from networkio_testing import Host, Judge, Wire, World
from networkio_testing.world import Watcher

__all__ = ["CONFIG", "FULL", "HEARD", "STEPS", "Conversation", "Handed", "Hook", "dump", "load", "report"]

#: ``make exhaust``: nothing is left out
FULL: Final = os.environ.get("NETWORKIO_EXHAUST") == "1"

#: the least frame that there is, so that 8,300 bytes make a message in fragments
CONFIG: Final = Config(limits=Limits(frame=8192, message=20_000))

#: is called before what waits at an end of a wire arrives at the other
Hook: TypeAlias = "Callable[[Conversation, Wire, int], None]"

_PEER = {"a": "b", "b": "a"}
_COUNT = 20
_BIG = 14
_BAD = 8


def _payload(name: str, number: int) -> bytes:
    """What the message says; one is long, and one is not to its reader's liking."""
    if (name, number) == ("b", _BIG):
        return b"b14" + bytes(range(256)) * 32 + b"." * 100
    return b"%s%02d%s" % (name.encode(), number, b" bad" * ((name, number) == ("a", _BAD)))


#: what each application must hear
HEARD: Final = {
    "a": [_payload("b", number) for number in range(1, _COUNT + 1)],
    "b": [_payload("a", number) for number in range(1, _COUNT + 1)],
}


@dataclass(frozen=True, slots=True)
class Handed:
    """A message that an application got."""

    to: str
    life: int
    payload: bytes
    redelivered: bool


class Conversation(Watcher):
    """Two nodes, their applications, and how far they are in the script.

    ``capacity``: what a wire takes before its writer has to wait, if need be with half a message.
    """

    def __init__(self, auth: Authenticator | None = None, capacity: int = 1 << 30) -> None:
        self.world = World(4)
        self.world.capacity, self.world.write_size = capacity, min(capacity, self.world.write_size)
        self.judge = Judge(self.world)
        self.hosts = {name: self.world.host(name, CONFIG, auth) for name in "ab"}
        self.world.watchers.append(self)
        #: the next of STEPS
        self.step = 0
        #: something went wrong that is not in the script
        self.disturbed = False
        self.held: dict[str, list[Delivery]] = {"a": [], "b": []}
        self.handed: list[Handed] = []
        #: (sender, its life, payload) of each message that a process took on
        self.taken_on: list[tuple[str, int, bytes]] = []

    # -- the script -----------------------------------------------------------------------------------------------

    def play(self, hook: Hook | None = None) -> None:
        """Go on from here to the end of the script."""
        while self.step < len(STEPS):
            self.play_step(hook)

    def play_step(self, hook: Hook | None = None) -> None:
        """The next step, and what follows from it."""
        self.step += 1
        STEPS[self.step - 1](self)
        self.flow(0.2, hook)

    def flow(self, seconds: float, hook: Hook | None = None) -> None:
        """Let bytes and time pass: what is under way arrives at once, timers are served when they are due."""
        world = self.world
        end = world.now + seconds
        while True:
            if not self._move(hook):
                due = world.next_timer()
                if due > end:
                    break
                world.advance(max(0.0, due - world.now))
        world.advance(end - world.now)

    def _move(self, hook: Hook | None) -> bool:
        """Everything that waits arrives once, in one piece per direction; was there anything?"""
        moved = False
        for host in self.hosts.values():
            if host.up and host.dials:
                self.connected(host.answer_dials())
                moved = True
        for wire in self.world.open_wires():
            for end in (0, 1):
                waiting = wire.waiting(end)
                if waiting:
                    if hook is not None:
                        hook(self, wire, end)
                    moved = wire.deliver(end) > 0 or wire.waiting(end) < waiting or moved
        return moved

    # -- what applications do -------------------------------------------------------------------------------------

    def dial(self) -> None:
        """The application of "a" wants a connection."""
        if self.hosts["a"].up:
            self.hosts["a"].dial("b")

    def say(self, first: int, last: int) -> None:
        """Both applications send these of their messages."""
        for number in range(first, last + 1):
            for name, host in self.hosts.items():
                if host.up and host.session(_PEER[name]).can_send:
                    host.send(_PEER[name], _payload(name, number))

    def take(self, limit: int) -> None:
        """Both applications take so many messages, and hold them."""
        for name, host in self.hosts.items():
            if host.up:
                self.held[name] += host.take(_PEER[name], limit)

    def settle(self) -> None:
        """Both applications are done with what they hold."""
        for name, host in self.hosts.items():
            while host.up and self.held[name]:
                delivery = self.held[name].pop(0)
                host.settle(_PEER[name], delivery, (7, "bad") if b"bad" in delivery[2] else None)

    def read(self) -> None:
        """Both applications take everything, and are done with it."""
        self.take(1000)
        self.settle()

    def end(self) -> None:
        """Both applications say that nothing follows."""
        for name, host in self.hosts.items():
            if host.up:
                host.end(_PEER[name])

    def say_in_vain(self, first: int, last: int) -> None:
        """Both send, and the connection breaks with everything that is under way (if that is the first mishap)."""
        self.say(first, last)
        wire = self.world.live("a", "b")
        if wire is not None and not self.disturbed:
            self.lost(wire)
            wire.cut()

    # -- what a test does -----------------------------------------------------------------------------------------

    def crash(self, name: str, *, reset: bool) -> None:
        """A process dies, and with it what its application held."""
        self.disturbed = True
        self.hosts[name].crash(reset=reset)
        self.held[name].clear()

    def restart(self, name: str) -> None:
        """A process begins; its application asks for a connection, if that is its part."""
        self.hosts[name].restart()
        if name == "a":
            self.dial()

    def heal(self) -> None:
        """Nothing goes wrong any more: the script is played to its end, everything is read, and nothing is left."""
        self.flow(0.2)
        self.play()
        for rounds in range(40):
            self.read()
            self.flow(0.2 if rounds < 5 else 5.0)
            if all(host.session(_PEER[name]).outbox.all_read for name, host in self.hosts.items()):
                break
        self.flow(70.0)  # a loss that nobody was told of is noticed
        made = self.world.connections_made
        self.flow(60.0)
        assert self.world.connections_made == made, "connections come and go"
        self.judge.at_rest()

    def heard(self, name: str) -> list[bytes]:
        """What the application of the host was handed, in order."""
        return [item.payload for item in self.handed if item.to == name]

    # -- for those who write everything down ----------------------------------------------------------------------

    def connected(self, wires: list[Wire]) -> None:
        """These came about."""

    def lost(self, wire: Wire) -> None:
        """It breaks next."""

    # -- what the world tells -------------------------------------------------------------------------------------

    def accepted(self, host: Host, peer: str, sequence: int, payload: bytes, options: object) -> None:
        self.taken_on.append((host.name, host.lives, payload))

    def handed_over(self, host: Host, peer: str, deliveries: object) -> None:
        assert isinstance(deliveries, list)
        for delivery in deliveries:
            flagged = delivery[4] is not None and delivery[4].redelivered
            self.handed.append(Handed(host.name, host.lives, delivery[2], flagged))


#: the script; after each step comes everything that follows from it, and 0.2 s
STEPS: Final[tuple[Callable[[Conversation], None], ...]] = (
    lambda it: it.dial(),
    lambda it: it.say(1, 6),
    Conversation.read,
    lambda it: it.say(7, 9),
    lambda it: it.take(2),
    Conversation.settle,
    lambda it: it.say(10, 13),
    lambda it: it.take(3),
    lambda it: it.say_in_vain(14, 15),
    lambda it: it.say(16, 18),
    Conversation.settle,
    Conversation.read,
    lambda it: it.say(19, 20),
    Conversation.end,
    Conversation.read,
)


def dump(conversation: Conversation) -> bytes:
    """The whole conversation as it stands."""
    return pickle.dumps(conversation, pickle.HIGHEST_PROTOCOL)


def load(dumped: bytes) -> Conversation:
    """Another one that stands there."""
    conversation = pickle.loads(dumped)
    assert isinstance(conversation, Conversation)
    return conversation


def report(text: str) -> None:
    """A line for those who run the tests with ``-s``, as ``make exhaust`` does."""
    print(f"\n  {text}", end="")
