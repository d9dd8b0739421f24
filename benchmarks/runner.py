"""Runs a scenario: networkio and its peers in turn, several times over, and never longer than is allowed.

Theory of operation
-------------------
With ``--quick`` a contender's processes live as long as the scenario and only the runs alternate; otherwise every
repeat has processes of its own, since no two processes are equally fast.  A first run of growing length warms a pair up
and tells how many messages fill a run; later pairs of the same contender are warmed up by a tenth of that.

Whatever fails ends that contender's part with a reason, and the others go on.  All processes are ended when the
scenario is over, whatever happens (``finally``, and for SIGTERM the handler in :mod:`benchmarks.compare`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from time import monotonic

from benchmarks.figures import Result
from benchmarks.machine import machine, program_version
from benchmarks.peers import NETWORKIO, PEERS, Contender
from benchmarks.processes import Failed, OutOfTime
from benchmarks.scenarios import Scenario, in_order
from benchmarks.workloads import FIXED, Pair, Sample, idle, measure

__all__ = ["Options", "beside_in", "choose", "run", "seen_from"]

#: a quick scenario takes less than 50 s in all; the rest is for ending it
_QUICK = 45.0
#: so long a measured run is meant to last (seconds): in full, with --quick
_RUN, _QUICK_RUN = 0.8, 1.0
#: a run that tells how fast somebody is lasts at least so long
_CALIBRATION = 0.15
#: one run, or the making of one pair, may take so long in full
_LIMIT = 180.0
#: brokers hold so many where others hold 100,000: filling them takes a minute otherwise, and is not what is measured
_BROKERS_BACKLOG = 20_000
#: how long idleness is looked at: at least, where time is short; else as long as it takes to ask everybody once whether
#: he is there
_WINDOW_LEAST, _WINDOW = 10.0, 20.0


@dataclass(frozen=True)
class Options:
    """The command line."""

    quick: bool = False
    adapter: str = "asyncio"
    #: None: all that the scenario has
    peers: Sequence[str] | None = None
    #: adapters of networkio that take part beside ``adapter``
    beside: tuple[str, ...] = ()


def repeats(scenario: Scenario, quick: bool) -> int:
    """How often everybody runs."""
    if not quick:
        return 5
    return 1 if scenario.connections >= 1000 or scenario.workload.startswith("idle") else 3


def beside_in(scenario: Scenario, options: Options) -> tuple[str, ...]:
    """The adapters that take part beside."""
    return options.beside if scenario.adapters else ()


def choose(
    scenario: Scenario, options: Options, table: dict[str, Contender] = PEERS
) -> tuple[list[str], dict[str, str], list[str]]:
    """Which peers take part, who is absent and why, who is left out."""
    ordered = in_order(scenario, options.adapter)
    asked = ordered if options.peers is None else list(options.peers)
    absent = {name: "it takes no part in this scenario" for name in asked if name not in ordered}
    left_out = [name for name in ordered if name not in asked]
    taking = [name for name in ordered if name in asked]
    chosen: list[str] = []
    for name in taking:
        if options.quick and options.peers is None and len(chosen) == 4:
            left_out.append(name)
        elif reason := table[name].absent():
            absent[name] = reason
        else:
            chosen.append(name)
    return chosen, absent, left_out


class _Entry:
    """One contender in one scenario."""

    def __init__(self, name: str, contender: str, scenario: Scenario, options: Options) -> None:
        self.name = name
        self.contender = contender
        self.scenario = scenario
        self.options = options
        self.pair: Pair | None = None
        self.amount = 0.0
        self.took = 0.0
        self.failed = ""
        #: it did nothing wrong, but the time of ``--quick`` is over
        self.over = False

    def start(self, deadline: float) -> Pair:
        """Its pair, connected and warmed up."""
        if self.pair is None:
            self.pair = Pair(self.contender, self.scenario, self.options.adapter, deadline)
            if self.scenario.workload in FIXED:
                self.amount = self._fixed()
            elif self.amount:
                measure(self.pair, max(self.amount / 10, 1), deadline)
            else:
                self.amount = self._calibrated(self.pair, deadline)
        return self.pair

    def _fixed(self) -> float:
        holds = self.scenario.workload == "backlog" and self.contender != NETWORKIO and PEERS[self.contender].program
        return _BROKERS_BACKLOG if holds else self.scenario.count

    def _calibrated(self, pair: Pair, deadline: float) -> float:
        seconds = max(self.scenario.seconds, _QUICK_RUN if self.options.quick else _RUN)
        if self.scenario.workload == "round-trip":
            measure(pair, _CALIBRATION, deadline)
            return seconds
        amount = max(8.0, min(500.0, 2e7 / self.scenario.size), 10.0 * (self.scenario.connections - 1))
        if self.scenario.workload == "depth":
            amount = max(amount, self.scenario.count / 5)  # each run has to fill the outbox first
        while True:
            sample = measure(pair, amount, deadline)
            pair.rest(deadline)
            if sample.seconds >= _CALIBRATION:
                return max(1.0, amount * seconds / sample.seconds)
            amount *= 4

    def sample(self, deadline: float) -> Sample:
        """One measured run."""
        pair = self.start(deadline)
        taken = measure(pair, self.amount, deadline)
        pair.rest(deadline)
        return taken

    def close(self) -> None:
        """End its processes.  Idempotent."""
        if self.pair is not None:
            self.pair.close()
            self.pair = None


def run(scenario: Scenario, options: Options, tell: Callable[[str], object]) -> Result:
    """Measure one scenario; ``tell`` hears how it goes."""
    begin = monotonic()
    deadline = begin + _QUICK if options.quick else inf
    chosen, absent, left_out = choose(scenario, options)
    result = Result(scenario, options.adapter, options.quick, absent=absent, left_out=left_out, machine=machine())
    entries = [_Entry(NETWORKIO, NETWORKIO, scenario, options)]
    beside = {f"{NETWORKIO}, {adapter}": replace(options, adapter=adapter) for adapter in beside_in(scenario, options)}
    entries += [_Entry(name, NETWORKIO, scenario, other) for name, other in beside.items()]
    entries += [_Entry(name, NETWORKIO, replace(scenario, **how), options) for name, how in scenario.own.items()]
    entries += [_Entry(name, name, scenario, options) for name in chosen]
    for name, reason in absent.items():
        tell(f"{scenario.name}: {name} is absent: {reason}")
    result.samples = {entry.name: [] for entry in entries}
    try:
        for number in range(repeats(scenario, options.quick)):
            where = f"{scenario.name} {number + 1}"
            (_idle_round if scenario.workload.startswith("idle") else _round)(entries, result, deadline, where, tell)
    finally:
        for entry in entries:
            entry.close()
    for entry in entries:
        if entry.failed or entry.over:
            fate = result.incomplete if result.samples[entry.name] else result.absent
            fate[entry.name] = entry.failed or "there was no time left for it (--quick)"
    result.complete = all(result.samples[each.name] and not each.failed for each in entries[: 1 + len(beside)])
    result.notes = {name: PEERS[name].notes for name in chosen}
    result.versions = _versions(chosen)
    result.seconds = monotonic() - begin
    return result


def seen_from(result: Result, adapter: str) -> Result:
    """What networkio came to with an adapter that took part beside another one, and the peers in its order."""
    own = f"{NETWORKIO}, {adapter}"
    names = [name for name in in_order(result.scenario, adapter) if name in result.samples]
    samples = {NETWORKIO: result.samples[own]} | {name: result.samples[name] for name in names}
    fates = [
        {NETWORKIO if name == own else name: why for name, why in fate.items() if name in (own, *result.scenario.peers)}
        for fate in (result.absent, result.incomplete)
    ]
    return replace(result, adapter=adapter, samples=samples, absent=fates[0], incomplete=fates[1])


def _round(entries: list[_Entry], result: Result, deadline: float, where: str, tell: Callable[[str], object]) -> None:
    """Each of those who still take part, once."""
    for entry in entries:
        if entry.failed or entry.over:
            continue
        begin = monotonic()
        if begin + entry.took >= deadline:
            entry.over = True
            continue
        limit = min(deadline, begin + _LIMIT)
        try:
            entry.start(limit)
            started = monotonic()
            sample = entry.sample(limit)
            entry.took = monotonic() - started
        except Failed as error:
            entry.close()
            if isinstance(error, OutOfTime) and monotonic() >= deadline and result.samples[entry.name]:
                entry.over = True
                continue
            entry.failed = str(error)
            tell(f"{where}: {entry.name} failed: {error}")
            continue
        result.samples[entry.name].append(sample)
        tell(f"{where}: {entry.name} {sample.value:,.4g} {entry.scenario.unit}")
        if not entry.options.quick or entry.scenario.workload == "storm":  # whose connections are to be new
            entry.close()


def _idle_round(
    entries: list[_Entry], result: Result, deadline: float, where: str, tell: Callable[[str], object]
) -> None:
    """All connect, one contender after the other; then all are idle at the same time."""
    needed = _WINDOW_LEAST + 4 if entries[0].scenario.workload == "idle-cpu" else 4.0
    pairs = {}
    for entry in entries:
        if not entry.failed:
            limit = min(deadline - needed, monotonic() + _LIMIT)
            if limit < monotonic():
                entry.over = True
                continue
            try:
                pairs[entry.name] = entry.start(limit)
            except Failed as error:
                entry.failed = str(error)
                entry.close()
                tell(f"{where}: {entry.name} failed: {error}")
            else:
                tell(f"{where}: {entry.name} has connected in {pairs[entry.name].connecting:.1f} s")
    window = _WINDOW
    if deadline < inf:
        window = max(_WINDOW_LEAST, min(_WINDOW, deadline - monotonic() - 4))
    for name, sample in (idle(pairs, window) if pairs else {}).items():
        result.samples[name].append(sample)
        tell(f"{where}: {name} {sample.value:,.4g} {result.scenario.unit} ({sample.seconds:.0f} s)")
    for entry in entries:
        entry.close()


def _versions(chosen: Sequence[str]) -> dict[str, str]:
    versions = {"Python": ".".join(str(part) for part in sys.version_info[:3])}
    for contender in [_NETWORKIO, *(PEERS[name] for name in chosen)]:
        versions |= contender.versions()
        if contender.program:
            versions[contender.program] = program_version(contender.program)
    return versions


_NETWORKIO = Contender("", "", distributions=("networkio", "anyio", "msgpack"))
