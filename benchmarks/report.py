"""Results as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.peers import NETWORKIO

__all__ = ["rows", "text"]


def rows(result: Mapping[str, Any]) -> list[tuple[str, float, float, float | None]]:
    """(who, median, spread, ratio) of one scenario's object, networkio first, then the others in their order."""
    spread, ratio = result["spread"], result["ratio"]
    own = result[NETWORKIO]
    first = [] if own is None else [(NETWORKIO, own, spread[NETWORKIO], None)]
    return first + [(name, value, spread[name], ratio.get(name)) for name, value in result["peers"].items()]


def number(value: float) -> str:
    """As people write it."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.4g}"


def text(name: str, result: Mapping[str, Any]) -> str:
    """One scenario."""
    machine = result["machine"]
    better = f"{result['better']} is better"
    lines = [f"{name}: {result['title']} ({result['unit']}, {better}; {result['adapter']} adapter)"]
    p99 = result.get("p99")
    heading = f"  {'':28} {'median':>12} {'spread':>7} {'networkio / it':>15} {'repeats':>8}"
    lines.append(heading + (f" {'p99':>10}" if p99 else ""))
    for who, value, spread, ratio in rows(result):
        line = f"  {who:28} {number(value):>12} {spread:>7.0%} {'' if ratio is None else f'{ratio:.3g}':>15}"
        line += f" {len(result['samples'][who]):>8}"
        if p99:
            line += f" {number(p99[NETWORKIO] if who == NETWORKIO else p99['peers'][who]):>10}"
        lines.append(line)
    lines += [f"  {who:28} absent: {why}" for who, why in result["absent"].items()]
    lines += [f"  {who:28} did not get through all repeats: {why}" for who, why in result["incomplete"].items()]
    if result["left_out"]:
        lines.append(f"  left out: {', '.join(result['left_out'])}")
    lines += [f"  note: {note}" for note in result["notes"]]
    lines += [f"  {who}: {note}" for who, note in result["peer_notes"].items()]
    lines.append("  with: " + ", ".join(f"{what} {version}" for what, version in result["versions"].items()))
    lines.append(
        f"  on: {machine['processor']}, {machine['cores']} cores, {machine['system']}; load {machine['load']} before; "
        f"{result['seconds']:.0f} s in all"
    )
    return "\n".join(lines)
