"""``networkio journal``: what a journal holds, without a node and without writing to it.

Theory of operation
-------------------
Everything is read row by row through :mod:`networkio_journal.inspection`, so a journal may be larger than memory.  What
``export`` writes is JSON: a payload that JSON can carry stands there as ``data``; any other one, and one that networkio
did not encode, as ``base64``.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import Any

from networkio_journal.inspection import Inspection, PeerFound, inspecting
from networkio_proto.errors import DecodeError, printable
from networkio_proto.frames import DataFlag
from networkio_proto.journal import KeptMessage, MessageAccepted
from networkio_proto.maps import decode_map
from networkio_proto.payload import MsgpackCodec

from ._terminal import CommandError, plural

__all__ = ["run"]


def run(action: str, path: str, *, as_json: bool) -> int:
    """The ``journal`` command; returns its exit code.  Raises NetworkioError, OSError, CommandError."""
    if as_json and action != "show":
        raise CommandError(f"--json is for show; {action} has one form only")
    with inspecting(path) as found:
        return _ACTIONS[action](found, as_json)


# -- show -------------------------------------------------------------------------------------------------------------


def _show(found: Inspection, as_json: bool) -> int:
    version, node_id, peers = found.version(), found.node_id(), list(found.peers())
    if as_json:
        facts = {
            "journal": found.path, "node": node_id, "version": version, "bytes": found.size, "log_bytes": found.log,
            "closed": not found.log, "sqlite": sqlite3.sqlite_version, "peers": list(map(_facts, peers)),
        }  # fmt: skip
        print(json.dumps(facts))
        return 0
    size = f"{plural(found.size, 'byte')}, version {version}"
    closed = "closed in order" if not found.log else f"not closed in order, {plural(found.log, 'byte')} in its log"
    print(f"{printable(found.path, 4096)}: the journal of {printable(node_id)}; {size}; {closed}")
    for peer in peers:
        print(f"{printable(peer.peer_id)}\n  to it:   {_outbox(peer)}\n  from it: {_inbox(peer)}")
    return 0


def _facts(peer: PeerFound) -> dict[str, Any]:
    outbox = {
        "pending": peer.pending, "bytes": peer.size, "first": peer.first, "last": peer.last, "oldest": peer.oldest,
        "age": None if peer.oldest is None else _age(peer.oldest), "accepted": peer.accepted, "over": peer.over - 1,
        "failed_ranges": peer.failed,
    }  # fmt: skip
    inboxes = [
        {
            "outbox": each.facts.outbox_id.hex(), "run": each.facts.run.hex(), "read": each.facts.read,
            "received": each.facts.received, "ahead": each.settled, "rejected": len(each.rejects),
            "present": peer.present and each is peer.inboxes[-1],
        }
        for each in peer.inboxes
    ]  # fmt: skip
    kept = {
        "messages": peer.kept, "bytes": peer.kept_size, "oldest": peer.kept_oldest,
        "age": None if peer.kept_oldest is None else _age(peer.kept_oldest),
    }  # fmt: skip
    return {"id": peer.peer_id, "outbox": outbox, "inboxes": inboxes, "kept": kept}


def _age(oldest: int) -> int:
    """Seconds since then; 0 where the clock was set back."""
    return max(0, int(time.time()) - oldest)


def _outbox(peer: PeerFound) -> str:
    over = f"accepted up to {peer.accepted}, over up to {peer.over - 1}"
    if not peer.pending or peer.oldest is None:
        return f"nothing pending; {over}"
    what = f"{plural(peer.pending, 'message')} pending ({plural(peer.size, 'byte')}), {peer.first} to {peer.last}"
    return f"{what}, the oldest for {_duration(_age(peer.oldest))}; {over}"


def _inbox(peer: PeerFound) -> str:
    if not peer.inboxes:
        return "nothing read"
    last = peer.inboxes[-1]
    ahead = "".join(f", and {first} to {end}" for first, end in last.settled)
    rejected = f"; {plural(len(last.rejects), 'rejection')}" if last.rejects else ""
    over = "" if peer.present else "; that session is over"
    kept = ""
    if peer.kept_oldest is not None:
        what = f"{plural(peer.kept, 'message')} kept to be read ({plural(peer.kept_size, 'byte')})"
        kept = f"; {what}, the oldest for {_duration(_age(peer.kept_oldest))}"
    return f"read up to {last.facts.read}{ahead}{rejected}{over}{kept}"


def _duration(seconds: int) -> str:
    days, hours, minutes = seconds // 86_400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


# -- export -----------------------------------------------------------------------------------------------------------


def _export(found: Inspection, _as_json: bool) -> int:
    codec = MsgpackCodec()
    for message, accepted in found.messages():
        line: dict[str, Any] = {"peer": message.peer_id, "sequence": message.sequence, "accepted": accepted}
        line |= _headers(message) | _payload(message, codec)
        print(json.dumps(line, ensure_ascii=False, allow_nan=False))
    for peer_id, kept, came in found.received():
        line = {"from": peer_id, "sequence": kept.sequence, "came": came} | _headers(kept) | _payload(kept, codec)
        print(json.dumps(line, ensure_ascii=False, allow_nan=False))
    sys.stdout.flush()
    return 0


def _headers(message: MessageAccepted | KeptMessage) -> dict[str, Any]:
    if not message.headers:
        return {}
    try:
        headers = decode_map(message.headers)
        headers.pop("id", None)  # networkio's own
        return {"headers": headers} if _fits(headers) else {"headers_base64": _base64(message.headers)}
    except ValueError:
        return {"headers_base64": _base64(message.headers)}


def _payload(message: MessageAccepted | KeptMessage, codec: MsgpackCodec) -> dict[str, Any]:
    if not message.flags & DataFlag.RAW:
        try:
            data = codec.decode(message.payload)
            if _fits(data):
                return {"data": data}
        except DecodeError:  # another codec's
            pass
    return {"base64": _base64(message.payload)}


def _fits(data: object) -> bool:
    """Does JSON carry it, and nothing else?"""
    try:
        return _same(json.loads(json.dumps(data, allow_nan=False)), data)
    except (TypeError, ValueError, RecursionError):
        return False


def _same(left: object, right: object) -> bool:
    """Equal, and of equal types all through."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(_same(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return left == right


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# -- verify -----------------------------------------------------------------------------------------------------------


def _verify(found: Inspection, _as_json: bool) -> int:
    count = 0
    for text in found.faults():
        print(text, flush=True)
        count += 1
    if not count:
        print("every page, row and checksum is as it was written")
    return int(count > 0)


_ACTIONS: dict[str, Callable[[Inspection, bool], int]] = {"show": _show, "export": _export, "verify": _verify}
