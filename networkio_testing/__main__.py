"""``python -m networkio_testing``: the test tools for the command line, one subcommand each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .conformance import command, echo


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m networkio_testing", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (command, echo):
        module.add(subparsers)
    options = parser.parse_args(arguments)
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
