"""The ``networkio`` command, also ``python -m networkio_command``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from networkio_proto import __version__

from . import _demo

__all__ = ["main"]

#: a handshake that resumes a session takes about 630 bytes; below this hardly anything else would pass
_LEAST_CUT = 2000

_DEMO = """\
Two processes, server-001 and client-123, send each other numbered messages through a proxy that cuts the connection
again and again.  Each checks everything that it reads.  At the end stands the ledger: the sums of both directions."""

_DEMO_END = """\
The exit code is 0 if every message was read once and in order, else 1.

example:
  networkio demo --messages 10000 --cut-every 4000 --json"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code.  Wrong arguments end in SystemExit, as argparse has it."""
    arguments = _parser().parse_args(argv)
    try:
        return _demo.run(arguments.messages, arguments.cut_every, arguments.seed, as_json=arguments.json)
    except KeyboardInterrupt:
        print("networkio: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="networkio",
        description="Reliable, acknowledged, ordered conversations between named peers.",
        epilog="example:\n  networkio demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"networkio {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    demo = commands.add_parser(
        "demo",
        help="watch two processes talk while their connection is cut",
        description=_DEMO,
        epilog=_DEMO_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    demo.add_argument(
        "--messages", type=_number(1, 10_000_000), default=5_000, metavar="N",
        help="messages in each direction (default: %(default)s)",
    )
    demo.add_argument(
        "--cut-every", type=_number(_LEAST_CUT), default=4_000, metavar="BYTES",
        help="bytes from one cut to the next, both directions together, each time at random within 50%% of this "
        f"(default: %(default)s, at least {_LEAST_CUT})",
    )
    demo.add_argument(
        "--seed", type=int, default=1, metavar="S",
        help="of the messages and of the places where the proxy cuts (default: %(default)s)",
    )
    demo.add_argument("--json", action="store_true", help="print the ledger as one JSON object")
    return parser


def _number(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argument's type: a whole number within bounds."""
    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
        return number

    return convert


if __name__ == "__main__":
    sys.exit(main())
