"""How each kind of scenario is measured, with a pair of ends that are connected already.

A workload takes a :class:`Pair` and an *amount* (messages, or seconds for round trips) and returns a :class:`Sample`.
Times come from the processes that did the work, on the monotonic clock that all processes of a machine share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any

from benchmarks.ends import Plan, percentile
from benchmarks.peers import NETWORKIO, PEERS, module_of, program
from benchmarks.processes import Broker, Failed, Worker
from benchmarks.scenarios import Scenario

__all__ = ["FIXED", "Pair", "Sample", "idle", "measure"]

#: workloads whose amount is part of the scenario, and not found out by a short run
FIXED = ("idle-memory", "idle-cpu", "storm", "backlog")

#: idle connections settle for so long before anything is measured (seconds)
_SETTLE = 2.0


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    value: float
    #: how long the measured part took
    seconds: float
    #: further figures, by name
    more: dict[str, float] = field(default_factory=dict)


class Pair:
    """A contender's two processes, and its broker if it has one; connected when it is made."""

    def __init__(self, contender: str, scenario: Scenario, adapter: str, deadline: float) -> None:
        self.contender = contender
        self.scenario = scenario
        self.answering = False
        self._open = ExitStack()
        try:
            self._start(contender, adapter, deadline)
        except BaseException:
            self.close()
            raise

    def _start(self, contender: str, adapter: str, deadline: float) -> None:
        scenario = self.scenario
        directory = self._open.enter_context(TemporaryDirectory(prefix="networkio-bench-"))

        def plan(role: str) -> Plan:
            return Plan(
                contender, role, scenario.size, scenario.connections, scenario.raw, adapter, directory,
                settings=dict(scenario.settings),
            )

        address = None
        if contender != NETWORKIO and PEERS[contender].program:
            path = program(PEERS[contender].program)
            assert path is not None  # else it would be absent
            start = import_module(module_of(contender, adapter)).broker
            broker = Broker(PEERS[contender].program, lambda port: start(path, port, directory), directory)
            self._open.callback(broker.close)
            address = broker.port
        self.server = Worker(plan("server"))
        self._open.callback(self.server.close)
        self.client = Worker(plan("client"))
        self._open.callback(self.client.close)
        self.server.begin(address)
        address = self.server.hear(deadline)["result"]
        #: the server's memory before anybody came
        self.before = memory(self.server.pid) if scenario.workload == "idle-memory" else 0
        self.client.begin(address)
        connected = self.client.hear(deadline)
        #: how long the connections took to make
        self.connecting = connected["end"] - connected["begin"]

    def close(self) -> None:
        """End its processes.  Idempotent."""
        self._open.close()

    def rest(self, deadline: float) -> None:
        """Tidy up between two runs."""
        if not self.answering:
            self.server.ask(deadline, "rest")
        self.client.ask(deadline, "rest")

    def together(self, deadline: float, server: dict[str, Any], client: dict[str, Any]) -> tuple[Any, Any]:
        """Tell both what to do, the server first, and wait for both."""
        self.server.tell(**server)
        self.client.tell(**client)
        there = self.client.hear(deadline)
        return self.server.hear(deadline), there


def measure(pair: Pair, amount: float, deadline: float) -> Sample:
    """One run."""
    return _WORKLOADS[pair.scenario.workload](pair, amount, deadline)


def _rate(count: int, begin: float, end: float) -> Sample:
    seconds = max(end - begin, 1e-9)
    return Sample(count / seconds, seconds)


def _one_way(pair: Pair, amount: float, deadline: float) -> Sample:
    count = int(amount)
    server, client = pair.together(deadline, {"do": "receive", "count": count}, {"do": "send", "count": count})
    return _rate(count, client["begin"], max(server["end"], client["end"]))


def _both_ways(pair: Pair, amount: float, deadline: float) -> Sample:
    count = int(amount) // 2
    server, client = pair.together(deadline, {"do": "both", "count": count}, {"do": "both", "count": count})
    return _rate(2 * count, min(server["begin"], client["begin"]), max(server["end"], client["end"]))


def _round_trip(pair: Pair, amount: float, deadline: float) -> Sample:
    """``amount`` is seconds."""
    if not pair.answering:
        pair.server.tell("answer")
        pair.answering = True
    trips = pair.client.ask(deadline, "ask", count=10**9, seconds=amount)["result"]
    p50, p99 = (1e6 * percentile(trips, percent) for percent in (50, 99))
    return Sample(p50, sum(trips), {"p99": p99})


def _depth(pair: Pair, amount: float, deadline: float) -> Sample:
    depth, count = pair.scenario.count, int(amount)
    pair.client.ask(deadline, "fill", depth=depth)
    server, client = pair.server, pair.client
    server.tell("receive", count=depth + count)
    kept = client.ask(deadline, "keep", count=count)
    client.ask(deadline, "finish")
    server.hear(deadline)
    return _rate(count, kept["begin"], kept["end"])


def _backlog(pair: Pair, amount: float, deadline: float) -> Sample:
    count = int(amount)
    pair.server.ask(deadline, "away")
    pair.client.ask(deadline, "away")
    pair.client.ask(deadline, "hoard", count=count)
    back = {"do": "back", "count": count}
    server, client = pair.together(deadline, back, back)
    return _rate(count, server["begin"], max(server["end"], client["end"]))


def _storm(pair: Pair, amount: float, deadline: float) -> Sample:
    clients, count = pair.scenario.connections, pair.scenario.count
    if pair.contender != NETWORKIO:
        return Sample(pair.connecting, pair.connecting)
    half = count // 2
    pair.client.ask(deadline, "send_numbers", numbers=list(range(half)))
    pair.server.ask(deadline, "arrivals", count=clients * half)
    pair.server.ask(deadline, "vanish")
    pair.client.ask(deadline, "send_numbers", numbers=list(range(half, count)))
    server, client = pair.together(
        deadline, {"do": "come_back", "clients": clients, "count": count}, {"do": "resume"}
    )
    found = server["result"]
    if found["wrong"] or found["clients"] != clients:
        raise Failed(f"messages of {found['wrong']} clients were lost, doubled or out of order: {found}")
    seconds = max(server["end"], client["end"]) - server["begin"]
    return Sample(seconds, seconds)


_WORKLOADS: dict[str, Callable[[Pair, float, float], Sample]] = {
    "one-way": _one_way, "fan-in": _one_way, "both-ways": _both_ways, "round-trip": _round_trip, "depth": _depth,
    "backlog": _backlog, "storm": _storm,
}


# -- idleness: all contenders at the same time ----------------------------------------------------------------------


def idle(pairs: dict[str, Pair], window: float) -> dict[str, Sample]:
    """What the servers of all pairs take while nothing happens, for ``window`` seconds after they have settled."""
    sleep(_SETTLE)
    if any(pair.scenario.workload == "idle-memory" for pair in pairs.values()):
        return {
            name: Sample((memory(pair.server.pid) - pair.before) / 1024 / pair.scenario.connections, _SETTLE)
            for name, pair in pairs.items()
        }
    begin, before = monotonic(), {name: processor_time(pair.server.pid) for name, pair in pairs.items()}
    sleep(window)
    seconds = monotonic() - begin
    return {
        name: Sample(100 * (processor_time(pair.server.pid) - before[name]) / seconds, seconds)
        for name, pair in pairs.items()
    }


def memory(pid: int) -> int:
    """The proportional set size of a process (bytes)."""
    return sum(int(line.split()[1]) for line in _proc(pid, "smaps_rollup") if line.startswith("Pss:")) * 1024


def processor_time(pid: int) -> float:
    """Of a process and all its threads (seconds)."""
    words = _proc(pid, "stat")[0].rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _proc(pid: int, name: str) -> Sequence[str]:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Failed(f"what a process takes is read from /proc, as Linux has it: {error}") from error
