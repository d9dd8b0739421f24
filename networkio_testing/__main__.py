"""``python -m networkio_testing``: play games with the network, hold an implementation to the specification.

Each subcommand is a module with a function ``add``, which puts its parser among the others; the parser's default
``main`` is called with the arguments and returns the exit status.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import replay, run, shrink
from .conformance import command, echo

#: the subcommands, in the order in which the help lists them
COMMANDS = (run, replay, shrink, command, echo)


def main(arguments: Sequence[str] | None = None) -> int:
    """The whole program; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m networkio_testing", description="Break networkio on purpose.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(subparsers)
    chosen = parser.parse_args(arguments)
    status: int = chosen.main(chosen)
    return status


if __name__ == "__main__":
    sys.exit(main())
