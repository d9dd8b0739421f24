"""Writes the tables and plots of the performance page from what ``compare.py --json`` printed.

    python -m benchmarks.page RESULTS.json... [--page docs/topics/performance.md]

Whatever stands in the page between ``<!-- generated: NAME -->`` and ``<!-- end -->`` is written anew; plots go beside
the page, into a directory of its name.  Several files of results (one for each adapter, say) make one page.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.peers import NETWORKIO
from benchmarks.plots import bars, lines
from benchmarks.report import number, rows
from benchmarks.scenarios import SCENARIOS

__all__ = ["main", "rewrite"]

#: by adapter, then by scenario
Results: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Any]]]

PAGE = Path(__file__).parents[1] / "docs/topics/performance.md"

_PART = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def load(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The results of several runs; a later file's scenario replaces an earlier one's of the same adapter."""
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        for name, result in json.loads(file.read_text(encoding="utf-8")).items():
            for each in (result, *result.get("beside", {}).values()):
                found.setdefault(each["adapter"], {})[name] = each
    for adapter, results in found.items():  # in the order of the scenarios
        found[adapter] = {name: results[name] for name in SCENARIOS if name in results}
    return found


def _each(results: Results) -> list[tuple[str, str, Mapping[str, Any]]]:
    return [(adapter, name, result) for adapter, group in results.items() for name, result in group.items()]


def table(name: str, adapter: str, result: Mapping[str, Any]) -> str:
    """One scenario as a table, with what went into it."""
    p99 = result.get("p99")
    lines_ = [
        f"### {result['title']}", "",
        f"`{name}`, {adapter} adapter, {result['unit']}, {result['better']} is better.", "",
        f"| | median | spread | networkio / it |{' p99 |' if p99 else ''}",
        f"|---|--:|--:|--:|{'--:|' if p99 else ''}",
    ]
    for who, value, spread, ratio in rows(result):
        line = f"| {who} | {number(value)} | {spread:.0%} | {'' if ratio is None else f'{ratio:.3g}'} |"
        if p99:
            line += f" {number(p99[NETWORKIO] if who == NETWORKIO else p99['peers'][who])} |"
        lines_.append(line)
    lines_ += ["", *(f"* {note}." for note in result["notes"])]
    lines_ += [f"* {who} is absent: {why}." for who, why in result["absent"].items()]
    lines_ += [f"* {who} did not get through all repeats: {why}." for who, why in result["incomplete"].items()]
    if result["left_out"]:
        lines_.append(f"* Left out: {', '.join(result['left_out'])}.")
    return "\n".join(lines_)


def tables(results: Results) -> str:
    """All scenarios."""
    return "\n\n".join(table(name, adapter, result) for adapter, name, result in _each(results)) or "Nothing yet."


def setup(results: Results) -> str:
    """On what, with what, when the machine had what else to do."""
    every = [result["machine"] for _, _, result in _each(results)]
    machines = dict.fromkeys((one["processor"], one["cores"], one["system"], one["python"]) for one in every)
    lines_ = [f"* {processor}, {cores} cores, {system}, {python}" for processor, cores, system, python in machines]
    loads = [one["load"] for one in every]
    if loads:
        lines_.append(f"* load average before each scenario: {min(loads)} to {max(loads)}")
    if any(result["quick"] for _, _, result in _each(results)):
        lines_.append("* some or all of it with `--quick`: fewer repeats, fewer peers, shorter runs")
    versions: dict[str, str] = {}
    for _, _, result in _each(results):
        versions |= result["versions"]
    lines_.append("* " + ", ".join(f"{what} {version}" for what, version in versions.items()))
    return "\n".join(lines_)


def contenders(results: Results) -> str:
    """How each peer is set up."""
    notes: dict[str, str] = {}
    for _, _, result in _each(results):
        notes |= result["peer_notes"]
    return "\n".join(f"* **{who}**: {note}." for who, note in notes.items())


def plots(results: Results, directory: Path) -> str:
    """Draw everything; the images for the page."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.svg"):
        old.unlink()
    images = []

    def keep(name: str, title: str, drawing: str) -> None:
        (directory / f"{name}.svg").write_text(drawing, encoding="utf-8")
        images.append(f"![{title}]({directory.name}/{name}.svg)")

    for adapter, name, result in _each(results):
        values = {who: value for who, value, _, _ in rows(result)}
        if values:
            title = result["title"] + ("" if adapter == "asyncio" else f", {adapter}")
            keep(f"{name}-{adapter}".lower(), title, bars(title, result["unit"], values, NETWORKIO))
    for name, (title, across, curves) in growth(results.get("asyncio", {})).items():
        if any(len(curve) > 1 for curve in curves.values()):
            keep(name, title, lines(title, across, "messages/s", curves))
    return "\n\n".join(images)


Curves: TypeAlias = dict[str, list[tuple[float, float]]]


def growth(results: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str, Curves]]:
    """How the rate changes with size, clients and backlog: (title, what is across, curves) by name."""

    def curves(points: Mapping[str, float]) -> Curves:
        found: Curves = {}
        for name, x in points.items():
            for who, value, _, _ in rows(results[name]) if name in results else ():
                if "," not in who:
                    found.setdefault(who, []).append((x, value))
        return {who: curve for who, curve in found.items() if len(curve) > 1}

    sizes = {"one-way-64B": 64.0, "one-way-1KiB": 1024.0, "one-way-64KiB": 65536.0, "one-way-1MiB-raw": 1048576.0}
    depths: Curves = {}
    if "depth" in results:
        at = {"networkio, depth 1": 1.0, "networkio, depth 1,000": 1e3, NETWORKIO: 1e5}
        depths[NETWORKIO] = [(at[who], value) for who, value, _, _ in rows(results["depth"]) if who in at]
    return {
        "growth-size": ("One way, by size", "bytes a message", curves(sizes)),
        "growth-clients": (
            "To one server, by clients", "clients",
            curves({"one-way-64B": 1.0, "fan-in-100": 100.0, "fan-in-1000": 1000.0}),
        ),
        "growth-depth": ("By messages in the outbox", "messages in the outbox", depths),
    }


def rewrite(page: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """The page with each generated part made anew; raises ValueError for a part that nobody makes."""

    def part(found: re.Match[str]) -> str:
        if found["name"] not in parts:
            raise ValueError(f"nothing generates {found['name']!r}; there are {', '.join(parts)}")
        return f"{found[1]}\n{parts[found['name']]()}\n\n{found[3]}"

    return _PART.sub(part, page)


def main(words: Sequence[str]) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(words)
    results, page = load(options.results), options.page
    page.write_text(
        rewrite(page.read_text(encoding="utf-8"), {
            "tables": lambda: tables(results),
            "setup": lambda: setup(results),
            "contenders": lambda: contenders(results),
            "plots": lambda: plots(results, page.with_suffix("")),
        }),
        encoding="utf-8",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
