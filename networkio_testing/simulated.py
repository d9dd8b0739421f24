"""A breakable network of nodes on the bare core, in virtual time: for code that blocks, and for what needs a judge.

Theory of operation
-------------------
A :class:`SimulatedNetwork` is a :class:`~networkio_testing.world.World` that speaks the words of
:class:`~networkio_testing.network.Network`, and whose hosts are run by :class:`~networkio_testing.node.SimulatedNode`.
A :class:`~networkio_testing.judges.Judge` watches it all the time and objects in the step that breaks a promise.

Whatever waits lets the world go on, one thing after the other, up to what it waits for; nothing else moves time.  A
process may crash between any two of these things, and a new one takes its place with :meth:`SimulatedNetwork.restart`.

    network = SimulatedNetwork()
    client, server = network.node("client"), network.node("server")
    server.serve(lambda message: message.reply(message.data + 1))
    to_server = client.connect("server", "server")
    network.cut(client, server)
    assert to_server.request(41) == 42
    network.check()
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from math import inf
from typing import cast

from networkio_proto import Codec, Config
from networkio_proto.auth import Authenticator

from .judges import Judge
from .network import Name, Network
from .node import SimulatedNode
from .world import Cut, Host, Watcher, Wire, World

__all__ = ["SimulatedNetwork", "SimulatedWire"]

#: back-off and dials that get no answer take less than this, dead connections that have to be noticed not counted (s)
_TIME_TO_RECOVER = 90.0


class SimulatedWire(Wire):
    """A wire whose bytes may take time, and wait for the end of a partition."""

    world: SimulatedNetwork

    def __init__(self, world: World, number: int, hosts: tuple[Host, Host]) -> None:
        super().__init__(world, number, hosts)
        #: for each direction: when what stands before which position is due, later than what may arrive by now
        self._due: tuple[deque[tuple[float, int]], ...] = (deque(), deque())
        self._written = [0, 0]
        self._free = [0, 0]

    @property
    def names(self) -> tuple[str, str]:
        """Who dialled, and who accepted."""
        return self.hosts[0].name, self.hosts[1].name

    def hold(self, on: bool) -> None:
        """Let nothing arrive from now on, until it may again."""
        for pipe in self.pipes:
            if on:
                pipe.held_until = inf
            elif pipe.held_until == inf:
                pipe.held_until = self.world.now

    def snap(self, end: int, how: Cut) -> None:
        if how in ("rst", "fin") and self.world.apart(*self.names):
            self._cut_apart(end, how)
        else:
            super().snap(end, how)

    def cut(self, how: str = "rst") -> None:
        if self.world.apart(*self.names):
            self._cut_apart(0, how)
            return
        for pipe, due in zip(self.pipes, self._due, strict=True):
            due.clear()
            pipe.held_until = 0.0
        super().cut(how)

    def _cut_apart(self, end: int, how: str) -> None:
        """Behind a partition ``end`` learns it now, the other one when that is over."""
        there, back = self.pipes[end], self.pipes[1 - end]
        if how != "fin":
            there.data.clear()
            self._due[end].clear()
        back.data.clear()
        back.black_hole = True
        there.fin, there.black_hole = True, False
        self._lose(end, None if how == "fin" else ConnectionResetError("cut"))

    def cut_half(self, end: int, *, late: float | None = None) -> None:
        super().cut_half(end, late=late)
        if self.world.apart(*self.names):
            self.hold(True)

    def write(self, end: int) -> None:
        pipe, due, now = self.pipes[end], self._due[end], self.world.now
        before = len(pipe.data)
        super().write(end)
        added = len(pipe.data) - before
        if added <= 0:
            return
        self._written[end] += added
        delay = self.world.distance(*self.names)
        if delay or due:
            # what is under way is not overtaken; held_until tells the world when to look again
            when = max(now + delay, due[-1][0] if due else 0.0)
            if not due:
                self._free[end] = self._written[end] - added
                if not before:
                    pipe.held_until = max(pipe.held_until, when)
            due.append((when, self._written[end]))

    def deliver(self, end: int, count: int | None = None, chunk: int | None = None) -> int:
        pipe, due, now = self.pipes[end], self._due[end], self.world.now
        if not due or now < pipe.held_until:
            return super().deliver(end, count, chunk)
        while due and due[0][0] <= now:
            self._free[end] = due.popleft()[1]
        if not due:
            return super().deliver(end, count, chunk)
        free = self._free[end] - pipe.delivered
        arrived = super().deliver(end, free if count is None else min(free, count), chunk) if free > 0 else 0
        if due:
            pipe.held_until = max(pipe.held_until, due[0][0])
        return arrived


class SimulatedNetwork(Network[SimulatedWire], World):
    """Nodes, a clock, and a network between them that can break.  ``now`` is the time (seconds).

    ``seed`` determines the run.  ``judge`` objects to broken promises of the library; ``check`` to what is left over.
    """

    wire_type = SimulatedWire

    def __init__(self, seed: int = 0) -> None:
        World.__init__(self, seed)
        Network.__init__(self, seed)
        #: the node of the present process of each host
        self.nodes: dict[str, SimulatedNode] = {}
        self.judge = Judge(self)
        self.watchers.append(_Scribe(self))

    def __repr__(self) -> str:
        return f"<SimulatedNetwork of {', '.join(self.nodes) or 'nobody'}, time {self.now:g}>"

    def node(
        self,
        name: str,
        *,
        config: Config | None = None,
        auth: Authenticator | None = None,
        codec: Codec | None = None,
        patience: float = 3600.0,
    ) -> SimulatedNode:
        """A new machine with a node, which can be dialled by its name: ``other.connect(name, name)``.

        ``codec``: objects to bytes.  ``patience``: after so many virtual seconds a wait without a timeout raises Stuck.
        Raises ValueError if there is one of that name.
        """
        if name in self.hosts:
            raise ValueError(f"there is a node {name!r} already; restart({name!r}) makes a new process of it")
        return self._process(self.host(name, config, auth), codec, patience)

    def _process(self, host: Host, codec: Codec | None, patience: float) -> SimulatedNode:
        node = self.nodes[host.name] = SimulatedNode(host, codec=codec, patience=patience)
        return node

    def crash(self, node: Name, *, reset: bool = True) -> None:
        """Its process dies between two instructions, and has forgotten everything.

        Whoever was connected to it learns that, unless the machine is gone too (``reset=False``).
        """
        self.hosts[self.name_of(node)].crash(reset=reset)

    def restart(self, node: Name) -> SimulatedNode:
        """A new process on the same machine, under the same name; one that still runs crashes first."""
        old = self.nodes[self.name_of(node)]
        old.host.restart()
        return self._process(old.host, old.codec, old.patience)

    def pause(self, node: Name, on: bool = True) -> None:
        """Its process stands still, and nobody is told; ``on=False``: it goes on."""
        host = self.hosts[self.name_of(node)]
        (host.pause if on else host.resume)()

    def run(self, seconds: float = 60.0) -> None:
        """Let time pass: bytes arrive, dials are answered, timers are served, handlers are called."""
        until = self.now + seconds
        while self.now < until:
            self.step(until)
        self.deliver_all()

    def check(self) -> None:
        """Heal the network, let the time pass that it needs to recover, and look whether everything is over.

        Raises Unfinished if a node is left with messages that were not taken, not settled or not read (unless
        ``strict`` is False; nodes that crashed do not count), and Violation if the library broke a promise.
        """
        self.heal()
        for host in self.hosts.values():
            if host.paused:
                host.resume()
        self.run(_TIME_TO_RECOVER + 2 * max((host.config.dead_after for host in self.hosts.values()), default=0.0))
        self.check_finished(node for node in self.nodes.values() if node.alive)
        for node in self.nodes.values():
            if node.closed:
                node.host.crash()  # its program is over
        if self.strict:
            self.judge.at_rest()

    # -- what the world and the words ask of each other -------------------------------------------------------------

    def known(self) -> Collection[str]:
        return self.hosts

    def breakable(self) -> list[SimulatedWire]:
        return cast("list[SimulatedWire]", self.open_wires())

    def reachable(self, dialer: Host, acceptor: Host) -> bool:
        return not self.apart(dialer.name, acceptor.name)

    def listens(self, host: Host) -> bool:
        return not self.refuses(host.name) and super().listens(host)


class _Scribe(Watcher):
    """Notes what is written."""

    def __init__(self, network: SimulatedNetwork) -> None:
        self._network = network

    def wrote(self, wire: Wire, end: int, buffers: Sequence[bytes | memoryview]) -> None:
        names = wire.hosts[end].name, wire.hosts[1 - end].name
        self._network.note(self._network.now, *names, b"".join(buffers))
