"""From samples to figures: medians, spread, ratios, and the object that ``--json`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.peers import NETWORKIO
from benchmarks.scenarios import Scenario
from benchmarks.workloads import Sample

__all__ = ["Result", "rounded", "spread", "to_json"]


@dataclass
class Result:
    """What came of one scenario."""

    scenario: Scenario
    adapter: str
    quick: bool
    #: by contender, networkio first, in the order in which they took part
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    #: who did not take part, and why
    absent: dict[str, str] = field(default_factory=dict)
    #: who did not get through all repeats, and why
    incomplete: dict[str, str] = field(default_factory=dict)
    #: who could have, and was left out by ``--quick`` or ``--peers``
    left_out: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    #: networkio got through; whether a peer does is the peer's affair
    complete: bool = False


def rounded(value: float) -> float:
    """Four significant digits: no run is more exact than that."""
    return float(f"{value:.4g}")


def spread(values: Sequence[float]) -> float:
    """How far apart the extremes are, as a part of the median."""
    middle = median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def _table(values: Mapping[str, float]) -> dict[str, Any]:
    """Medians and ratios in the shape of the object."""
    own = values.get(NETWORKIO)
    peers = {name: value for name, value in values.items() if name != NETWORKIO}
    return {
        NETWORKIO: None if own is None else rounded(own),
        "peers": {name: rounded(value) for name, value in peers.items()},
        "ratio": {name: rounded(own / value) for name, value in peers.items() if own is not None and value},
    }


def to_json(result: Result) -> dict[str, Any]:
    """``{"networkio": v, "peers": {name: v}, "ratio": {name: r}}``, and beside that what is needed to judge it.

    ``ratio`` is networkio's value by the peer's: more than 1 is good where ``better`` is "higher", less than 1 where it
    is "lower".
    """
    samples = {name: taken for name, taken in result.samples.items() if taken}
    table = _table({name: median(sample.value for sample in taken) for name, taken in samples.items()})
    for more in sorted({name for taken in samples.values() for sample in taken for name in sample.more}):
        table[more] = _table({name: median(sample.more[more] for sample in taken) for name, taken in samples.items()})
    return table | {
        "title": result.scenario.title,
        "unit": result.scenario.unit,
        "better": result.scenario.better,
        "spread": {name: rounded(spread([sample.value for sample in taken])) for name, taken in samples.items()},
        "samples": {name: [rounded(sample.value) for sample in taken] for name, taken in samples.items()},
        "absent": dict(result.absent),
        "incomplete": dict(result.incomplete),
        "left_out": list(result.left_out),
        "notes": list(result.scenario.notes),
        "peer_notes": dict(result.notes),
        "adapter": result.adapter,
        "quick": result.quick,
        "seconds": round(result.seconds, 1),
        "versions": dict(result.versions),
        "machine": dict(result.machine),
    }
