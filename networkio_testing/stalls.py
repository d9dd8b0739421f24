"""The judge of processes that stood still: whoever wakes up asks its peers before it gives them up.

Theory of operation
-------------------
A :class:`StallJudge` notes by each host's own clock when it was last awake.  If much more time than that between two
PINGs has passed when timers are served, the process was paused: in that very tick every live connection must be asked
(a clock jumps: a prompt probe), and for ``Config.probe_timeout`` nobody is given up for silence, for the answer may
wait in a buffer of the system (a blocked loop: no false death).  And at no time is a connection given up on which bytes
came within ``Config.dead_after``.
"""

from __future__ import annotations

from typing import NoReturn

from networkio_proto import Close, Connection, ConnectionLost, Effect, HandshakeTimeout

from .judges import Violation
from .world import Host, Watcher, Wire, World

__all__ = ["StallJudge"]

#: a clock that went through many additions is not exact
_EPSILON = 1e-6

#: how the core says that it gave up a stream which takes nothing
_STALLED = "took no byte"


class StallJudge(Watcher):
    """Watches all hosts of a world from now on; ``pauses`` counts those that were long enough to judge."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pauses = 0
        #: by the process: when it was last awake, and when it last woke up
        self._awake: dict[bytes, float] = {}
        self._woke: dict[bytes, float] = {}
        self._live: set[Connection] = set()
        self._heard: dict[tuple[int, int], float] = {}
        world.watchers.append(self)

    def _object(self, text: str) -> NoReturn:
        raise Violation("I26", text, self.world)

    def crashed(self, host: Host) -> None:
        self._live.difference_update(host.endpoint.connections)

    def arrived(self, wire: Wire, end: int) -> None:
        self._heard[(wire.number, end)] = wire.hosts[end].now

    def pumped(self, host: Host) -> None:
        self._awake[host.endpoint.incarnation] = host.now
        for connection in host.endpoint.connections:
            if connection.live:
                self._live.add(connection)

    def ticked(self, host: Host) -> None:
        process, now, config = host.endpoint.incarnation, host.now, host.config
        slept = now - self._awake.get(process, now)
        self._awake[process] = now
        if slept <= config.ping_after + config.pause_threshold:
            return
        self.pauses += 1
        self._woke[process] = now
        for connection in host.endpoint.connections:
            if connection.live and connection in self._live and connection.liveness._ping is None:
                self._object(f"{host} slept for {slept:.3f} s, and does not ask {connection.peer_id}")

    def effect(self, host: Host, effect: Effect) -> None:
        if not isinstance(effect, Close) or effect.connection not in self._live:
            return
        self._live.discard(effect.connection)
        error, config, now = effect.connection.error, host.config, host.now
        silent = isinstance(error, HandshakeTimeout) and not error.remote
        if not silent and not (isinstance(error, ConnectionLost) and _STALLED in str(error)):
            return
        awake = now - self._woke.get(host.endpoint.incarnation, -config.probe_timeout)
        if awake < config.probe_timeout - _EPSILON:
            self._object(f"{host} woke up {awake:.3f} s ago, and gives {effect.connection.peer_id} up")
        if not silent:
            return
        heard = self._heard.get(_place(host, effect.connection), now - config.dead_after)
        if now - heard < config.dead_after - _EPSILON:
            self._object(f"{host} gives {effect.connection.peer_id} up, heard {now - heard:.3f} s ago")


def _place(host: Host, connection: Connection) -> tuple[int, int]:
    wire, end = host.wires.get(connection, (None, 0))
    return (0, 0) if wire is None else (wire.number, end)
