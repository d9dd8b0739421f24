"""networkio side by side with what people use today, on this machine.

    python benchmarks/compare.py [SCENARIO...] [--quick] [--json] [--adapter asyncio|uvloop|trio|threads]
                                 [--beside ADAPTER,...] [--peers all|NAME,...]

Every scenario runs networkio and its peers in turn, at least five times, both ends in processes of their own.
``--quick``: three times, with the four most relevant peers; once where 1,000 connections or more take part; under 50 s
a scenario.  A scenario of many connections takes any other number too: storm-500.

``--beside``: networkio takes part with other adapters, too, in the same rounds of those scenarios in which adapters are
compared; what it comes to with each is told as
if it had run with ``--adapter``, beside the same figures of the same peers.

``--json`` prints one object, ``{scenario: {"networkio": v, "peers": {name: v}, "ratio": {name: r}}}``, with more
beside (the results of ``--beside`` under that name).  A peer that is absent is told with the reason; ``make
bench-peers`` installs them all.

The exit code is 0 when networkio got through every scenario.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

if __name__ == "__main__":  # run as a file, its own directory is where Python would look first
    sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.figures import to_json
from benchmarks.peers import PEERS
from benchmarks.report import text
from benchmarks.runner import Options, beside_in, run, seen_from
from benchmarks.scenarios import SCENARIOS, find

_ADAPTERS = ("asyncio", "uvloop", "trio", "threads")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """The command line; a mistake ends the program with code 2 and says what would be right."""
    parser = argparse.ArgumentParser(
        prog="compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="less of everything, under 50 s a scenario")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--adapter", choices=_ADAPTERS, default="asyncio", help="networkio's; default: asyncio")
    parser.add_argument("--beside", default="", metavar="ADAPTER,...", help="more of networkio's adapters")
    parser.add_argument("--peers", default="all", metavar="all|NAME,...", help=f"of {', '.join(PEERS)}; default: all")
    options = parser.parse_args(words)
    for name in options.scenarios:
        try:
            find(name)
        except KeyError:
            parser.error(f"{name!r} is no scenario; there are {', '.join(SCENARIOS)}")
    options.beside = tuple(name.strip() for name in options.beside.split(",") if name.strip())
    for name in options.beside:
        if name not in _ADAPTERS or name in (options.adapter, "uvloop"):
            parser.error(f"--beside {name}: one of {', '.join(_ADAPTERS)}, not that of --adapter, and not uvloop, "
                         f"which the peers would have to run on as well")
    options.peers = None if options.peers == "all" else [name.strip() for name in options.peers.split(",")]
    for name in options.peers or ():
        if name not in PEERS:
            parser.error(f"{name!r} is no peer; there are {', '.join(PEERS)}")
    return options


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # so that every process is ended


def main(words: Sequence[str]) -> int:
    """Run what the command line says."""
    command = arguments(words)
    signal.signal(signal.SIGTERM, _terminated)
    options = Options(command.quick, command.adapter, command.peers, command.beside)
    results, complete = {}, True
    try:
        for name in dict.fromkeys(command.scenarios or SCENARIOS):
            result = run(find(name), options, lambda line: print(line, file=sys.stderr, flush=True))
            complete = complete and result.complete
            beside = {adapter: to_json(seen_from(result, adapter)) for adapter in beside_in(result.scenario, options)}
            results[name] = to_json(result) | ({"beside": beside} if beside else {})
            for each in () if command.json else (results[name], *beside.values()):
                print(text(name, each), end="\n\n", flush=True)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if command.json:
        print(json.dumps(results, indent=1))
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
