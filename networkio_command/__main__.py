"""The ``networkio`` command, also ``python -m networkio_command``: its arguments, its help and its exit codes."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from networkio_proto import ConfigurationError, NetworkioError, __version__
from networkio_proto.config import Limits
from networkio_testing.proxy import Chaos

from . import _chat, _demo, _genkey, _listen, _ping, _proxy, _send
from ._arguments import address, names_host, number, peer_id, positive_seconds, seconds, size
from ._bridge import ADAPTERS
from ._terminal import INTERRUPTED, CommandError, one_line
from ._trust import add_trust_options, trust_of

__all__ = ["main"]

#: a handshake that resumes a session takes about 630 bytes; below this hardly anything else would pass
_LEAST_CUT = 2000

_EXIT_CODES = """\
exit codes: 0 every message was read; 1 not every one was, or the command failed; 2 wrong arguments; 130 Ctrl-C."""

_ABOUT = """\
Reliable, acknowledged, ordered conversations between named peers.  A message is finished when the application at the
other end has read it; until then it survives any number of broken connections, and waits for the peer to be there."""

_ABOUT_END = f"""\
Every command has its own --help.  Addresses are HOST:PORT, [::1]:PORT, or PORT alone for this machine; sizes are bytes,
or 64K, 1M, 2G.  Ctrl-C ends a command in good order and prints what became of the messages; a second one, at once.

{_EXIT_CODES}

example:
  networkio demo
  networkio listen 8080 --id server-001
  networkio send localhost:8080 --id client-123 notes.txt"""

_LISTEN = """\
Take messages from whoever dials, write each to standard output or to the end of FILE, and acknowledge it when it was
written there: a sender that is told "read" knows that its line is with this machine's operating system.

Without an option each message is a line: text and bytes as they are, anything else as JSON, or as Python shows it where
JSON cannot.  A message that has no place in the chosen form (a line break inside of a line, bytes in JSON) is rejected;
its sender learns why, and those after it are not held up.  On a terminal, control characters are escaped.

With --output a listener may be killed, kill -9 included, and started again: no line is missing then.  Lines that were
written and not yet acknowledged come a second time.  A part of a line at the end of FILE, which only a death in the
midst of writing leaves, is cut off at the start; so do not name a file whose last line lacks its newline.  What --raw
writes has no lines: there, after a kill, a part of a message may stand before the message.

With --output and --journal, FILE holds every message exactly once, and whole, also with --raw: how long FILE is stands
in the journal, in one transaction with what is acknowledged, and what is behind that is cut off at the start.  Both are
synced to the disk before the sender is told "read".  Nobody else may write to FILE then."""

_SEND = """\
Send FILE, or standard input, to the node at HOST:PORT and wait until all of it is read.

Without an option each line is a message, without its line feed: text if it is UTF-8, bytes if it is not.  Nothing else
is changed, not even a carriage return, so that 'networkio listen' writes the same bytes.  A last line without a line
feed is a message like any other, and the listener's output ends with a line feed nevertheless.  A line can be as long
as a message, 16 MiB.

FILE is never held in memory; a pipe is sent as it comes.

With --journal, a command that was killed is started again with the same arguments, and sends what is not accepted yet;
what is accepted and not read goes out again.  Nothing is left out and nothing doubled.  FILE may have grown, by whole
lines; else it must be the same.  A pipe has no place to go on at: there, only what was accepted is kept."""

_PING = """\
Measure how long a message takes to the application at HOST:PORT and its acknowledgement back.  There must be one that
reads: 'networkio listen' and 'networkio chat' know a ping (by its header, {"networkio": "ping"}) and do not show it;
for any other program it is a message that holds None."""

_CHAT = """\
Two people, one line a message.  PORT alone waits for the other side to dial, HOST:PORT dials.  A line has one tick when
the other side's library holds it and two when it is on the other side's screen.  Lines typed while the other side is
away wait for it; what they wait for, restarts and lines that will not come are told.

Ctrl-D says that nothing follows, and leaves when all that was said is read.  A pipe instead of a terminal stays until
the other side has nothing more to say either."""

_GENKEY = """\
Make a random key for two peers, one line of text.  Both machines need the same line: copy it, or the FILE, in a way
that shows it to nobody else.  With --keys FILE the other commands take the lines that name their --id.  Of several keys
of the same two, the last is used to dial with, and all are accepted: add a new one there and here, then take the old
one out."""

_PROXY = """\
Carry TCP connections from LISTEN to TARGET, for any programs, and break them on purpose.  The address it listens on is
printed first; with port 0 a free one is taken.  It ends with Ctrl-C, and then prints what it did."""

_JOURNAL = """\
Look into a journal, FILE, that no node has open; it is never written to.  'show' tells for each peer what waits for it
and since when, and how far each direction came.  'export' writes what waits, a JSON document a line: "data" where JSON
can carry it, else "base64".  'verify' reads everything, compares every checksum, and lists all that is damaged."""

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
    logging.getLogger("networkio").addHandler(logging.NullHandler())  # the commands tell everything themselves
    try:
        return int(arguments.run(arguments))
    except ConfigurationError as error:
        return _failed(error, 2)
    except (NetworkioError, CommandError, OSError) as error:
        return _failed(error, 1)
    except KeyboardInterrupt:
        print("networkio: interrupted", file=sys.stderr)
        return INTERRUPTED


def _failed(error: BaseException, code: int) -> int:
    print(f"networkio: {one_line(error)}", file=sys.stderr)
    return code


class _Command(argparse.ArgumentParser):
    """Options may stand between the other arguments: ``send 8080 --id a FILE``."""

    _parsing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        if self._parsing:
            return super().parse_known_args(args, namespace)
        self._parsing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._parsing = False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="networkio",
        description=_ABOUT,
        epilog=_ABOUT_END,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"networkio {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Command)
    for add in (_add_listen, _add_send, _add_ping, _add_chat, _add_genkey, _add_proxy, _add_journal, _add_demo):
        add(commands)
    return parser


def _add(commands: Any, name: str, run: Callable[[Any], int], *, help: str, about: str, end: str) -> Any:
    command = commands.add_parser(
        name, help=help, description=about, epilog=end, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.set_defaults(run=run)
    return command


def _examples(*lines: str) -> str:
    return "\n".join([_EXIT_CODES, "", "example:", *(f"  {line}" for line in lines)])


def _add_node_options(command: Any) -> None:
    command.add_argument(
        "--id", type=peer_id, required=True, metavar="ID", dest="peer_id", help="the name of this node on the network"
    )
    add_trust_options(command)
    command.add_argument(
        "--adapter", choices=ADAPTERS, default="asyncio", help="the library's driver to use (default: %(default)s)"
    )


def _add_journal_option(command: Any, what: str) -> None:
    command.add_argument(
        "--journal", metavar="FILE",
        help=f"keep what has to outlive this process in FILE, which is made if there is none, and which only one "
        f"process at a time can have: {what}",
    )


def _add_peer_option(command: Any) -> None:
    command.add_argument(
        "--to", type=peer_id, metavar="PEER", help="insist that this peer answers (default: whoever does)"
    )


def _add_listen(commands: Any) -> None:
    command = _add(
        commands, "listen", lambda a: _listen.run(
            a.adapter, a.address, a.peer_id, form=a.form, path=a.output, trust=trust_of(a), journal=a.journal
        ),
        help="write down every message that comes", about=_LISTEN, end=_examples(
            "networkio listen 8080 --id server-001",
            "networkio listen 8080 --id server-001 --output notes.txt",
            "networkio listen 8080 --id server-001 --json --output events.jsonl",
            "networkio listen 0.0.0.0:8080 --id server-001 --insecure --raw --output photo.jpg",
        ),
    )
    command.add_argument("address", type=address, metavar="[HOST:]PORT", help="where to listen; port 0: a free one")
    forms = command.add_mutually_exclusive_group()
    forms.add_argument(
        "--json", dest="form", action="store_const", const="json", help="write one JSON document a line"
    )
    forms.add_argument(
        "--raw", dest="form", action="store_const", const="raw",
        help="write bytes as they come and nothing between them; messages of any other kind are rejected",
    )
    command.set_defaults(form="text")
    command.add_argument("--output", metavar="FILE", help="append to FILE, which is made if there is none")
    _add_journal_option(command, "with --output, that file then holds every message exactly once")
    _add_node_options(command)


def _add_send(commands: Any) -> None:
    command = _add(
        commands, "send", lambda a: _send.run(
            a.adapter, a.address, a.peer_id, to=a.to, path=a.file, form=a.form, chunk=a.chunk, stage=a.wait,
            trust=trust_of(a), journal=a.journal,
        ),
        help="send a file or standard input", about=_SEND, end=_examples(
            "networkio send localhost:8080 --id client-123 notes.txt",
            "tail -f app.log | networkio send localhost:8080 --id client-123 --to server-001",
            "networkio send localhost:8080 --id client-123 --json events.jsonl",
            "networkio send localhost:8080 --id client-123 --raw --chunk 64K photo.jpg",
        ),
    )
    command.add_argument("address", type=address, metavar="HOST:PORT", help="where to dial, until somebody answers")
    command.add_argument("file", nargs="?", metavar="FILE", help="what to send (default: standard input, as with -)")
    forms = command.add_mutually_exclusive_group()
    forms.add_argument(
        "--json", dest="form", action="store_const", const="json",
        help="each line is a JSON document; what it says is sent, and the first that is none ends the sending",
    )
    forms.add_argument(
        "--raw", dest="form", action="store_const", const="raw", help="bytes, whatever they are, cut into chunks"
    )
    command.set_defaults(form="text")
    command.add_argument(
        "--chunk", type=size(1, Limits().message), default="64K", metavar="SIZE",
        help="bytes of a message with --raw (default: %(default)s, at most 16M)",
    )
    command.add_argument(
        "--wait", choices=("accepted", "received", "read"), default="read",
        help="leave, with exit code 0, when every message is read by the application there (the default), when it is "
        "received by its library, or when it is accepted into the outbox here; an outbox ends with this command, which "
        "then waits at most 5 s for what is still in it",
    )
    _add_journal_option(command, "FILE to send is gone on with where it was accepted to, after a kill as well")
    _add_peer_option(command)
    _add_node_options(command)


def _add_ping(commands: Any) -> None:
    command = _add(
        commands, "ping", lambda a: _ping.run(
            a.adapter, a.address, a.peer_id, to=a.to, count=a.count, interval=a.interval, timeout=a.timeout,
            trust=trust_of(a),
        ),
        help="measure round trips of acknowledged messages", about=_PING, end=_examples(
            "networkio ping localhost:8080 --id client-123",
            "networkio ping localhost:8080 --id client-123 --count 1000 --interval 0",
        ),
    )
    command.add_argument("address", type=address, metavar="HOST:PORT", help="where to dial, until somebody answers")
    command.add_argument(
        "--count", type=number(1, 10_000_000), default=10, metavar="N", help="how many (default: %(default)s)"
    )
    command.add_argument(
        "--interval", type=seconds, default=1.0, metavar="S", help="seconds from one to the next (default: %(default)s)"
    )
    command.add_argument(
        "--timeout", type=positive_seconds, default=10.0, metavar="S",
        help="seconds after which one is given up (default: %(default)s)",
    )
    _add_peer_option(command)
    _add_node_options(command)


def _add_chat(commands: Any) -> None:
    command = _add(
        commands, "chat", lambda a: _chat.run(
            a.adapter, address(a.address), a.peer_id, to=a.to, listens=a.listen or not names_host(a.address),
            trust=trust_of(a), journal=a.journal,
        ),
        help="talk with somebody", about=_CHAT, end=_examples(
            "networkio chat 8080 --id alice",
            "networkio chat localhost:8080 --id bob",
            "networkio chat --listen 0.0.0.0:8080 --id alice --to bob --insecure",
        ),
    )
    command.add_argument("address", type=_chat_address, metavar="HOST:PORT|PORT", help="where to dial, or to wait")
    command.add_argument("--listen", action="store_true", help="wait at HOST:PORT instead of dialling it")
    _add_journal_option(command, "what was said and is not on the other side's screen is said by the next")
    _add_peer_option(command)
    _add_node_options(command)


def _chat_address(text: str) -> str:
    """Complains about what is no address, and leaves it as it is: whether a host was named matters."""
    address(text)
    return text


def _add_genkey(commands: Any) -> None:
    command = _add(
        commands, "genkey", lambda a: _genkey.run(a.one, a.other, a.key_id, a.file),
        help="make a pre-shared key for two peers", about=_GENKEY, end=_examples(
            "networkio genkey client-123 server-001 keys",
            "networkio genkey client-123 server-001 --key-id 2027 keys",
        ),
    )
    command.add_argument("one", type=peer_id, metavar="ID", help="one of the two peers")
    command.add_argument("other", type=peer_id, metavar="ID", help="the other one")
    command.add_argument("file", nargs="?", metavar="FILE", help="append to FILE (default: standard output)")
    command.add_argument(
        "--key-id", default="k1", metavar="NAME", help="tells several keys of the two apart (default: %(default)s)"
    )


def _add_proxy(commands: Any) -> None:
    command = _add(
        commands, "proxy", lambda a: _proxy.run(
            a.listen, a.target,
            Chaos(
                cut_every=a.cut_every, delay=a.delay / 1000, rate=a.rate, black_hole_after=a.black_hole_after,
            ),
            a.seed, insecure=a.insecure,
        ),
        help="break the connections of any programs on purpose", about=_PROXY, end=_examples(
            "networkio proxy 9090 localhost:8080 --cut-every 20K",
            "networkio proxy 9090 localhost:8080 --delay 100 --rate 1M",
            "networkio proxy 0 localhost:8080 --black-hole-after 30",
        ),
    )
    command.add_argument("listen", type=address, metavar="LISTEN", help="[HOST:]PORT to listen on; port 0: a free one")
    command.add_argument("target", type=address, metavar="TARGET", help="[HOST:]PORT to carry everything to")
    command.add_argument(
        "--cut-every", type=size(1), metavar="BYTES",
        help="bytes from one cut to the next, over all connections and both directions, each time at random within "
        "50%% of this; some cuts are a reset, some an orderly end",
    )
    command.add_argument(
        "--delay", type=seconds, default=0.0, metavar="MS", help="milliseconds by which every byte arrives later"
    )
    command.add_argument(
        "--rate", type=size(1), metavar="BYTES", help="bytes per second, for each direction of each connection"
    )
    command.add_argument(
        "--black-hole-after", type=seconds, metavar="S",
        help="seconds after which a connection carries nothing any more and tells nobody",
    )
    command.add_argument(
        "--seed", type=int, default=0, metavar="S",
        help="of what is at random; the same traffic is cut at the same bytes (default: %(default)s)",
    )
    command.add_argument("--insecure", action="store_true", help="allow addresses off this machine")


def _add_journal(commands: Any) -> None:
    command = _add(
        commands, "journal", _look_into_journal,
        help="look into a journal", about=_JOURNAL, end=_examples(
            "networkio journal show edge-7.db",
            "networkio journal export edge-7.db",
            "networkio journal verify edge-7.db",
        ),
    )
    actions = ("show", "export", "verify")
    command.add_argument("action", choices=actions, metavar="|".join(actions), help="what to do")
    command.add_argument("file", metavar="FILE", help="the journal")
    command.add_argument("--json", action="store_true", help="with show: one JSON object")


def _look_into_journal(arguments: Any) -> int:
    from . import _journal  # which loads SQLite

    return _journal.run(arguments.action, arguments.file, as_json=arguments.json)


def _add_demo(commands: Any) -> None:
    command = _add(
        commands, "demo", lambda a: _demo.run(a.messages, a.cut_every, a.seed, as_json=a.json),
        help="watch two processes talk while their connection is cut", about=_DEMO, end=_DEMO_END,
    )
    command.add_argument(
        "--messages", type=number(1, 10_000_000), default=5_000, metavar="N",
        help="messages in each direction (default: %(default)s)",
    )
    command.add_argument(
        "--cut-every", type=number(_LEAST_CUT), default=4_000, metavar="BYTES",
        help="bytes from one cut to the next, both directions together, each time at random within 50%% of this "
        f"(default: %(default)s, at least {_LEAST_CUT})",
    )
    command.add_argument(
        "--seed", type=int, default=1, metavar="S",
        help="of the messages and of the places where the proxy cuts (default: %(default)s)",
    )
    command.add_argument("--json", action="store_true", help="print the ledger as one JSON object")


if __name__ == "__main__":
    sys.exit(main())
