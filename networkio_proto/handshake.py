"""HELLO, HELLO_ACK and ATTACH: their maps as typed objects, checked key by key.

Theory of operation
-------------------
Four frames make a connection live (specification, *Handshake*)::

    dialer:   preamble, HELLO          who am I, whom do I mean, what can I do
    acceptor: preamble, HELLO_ACK      who am I, what we both can do
    dialer:   ATTACH                   my outbox, what I hold of yours, proof
    acceptor: ATTACH                   the same                             -> live

The first two commit nobody to anything.  Parsing turns a map into a frozen object or raises
:class:`~networkio_proto.frames.PeerFault` that names the key; unknown keys are ignored, missing ones are faults.
Nothing here touches a session.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .auth import MAC_SIZE
from .errors import CloseCode, printable
from .frames import ATTACH, HEADER_SIZE, HELLO, HELLO_ACK, MAX_SEQUENCE, PeerFault, encode_frame
from .maps import decode_map, encode_map

__all__ = [
    "AGENT",
    "MAX_ENDED",
    "VERSION",
    "Attach",
    "Ended",
    "Hello",
    "HelloAck",
    "InboxFacts",
    "PeerLimits",
    "Why",
    "choose_version",
    "encode_attach",
    "encode_hello",
    "encode_hello_ack",
    "parse_attach",
    "parse_hello",
    "parse_hello_ack",
    "zero_mac",
]

VERSION = 1
AGENT = "networkio-python/0.1"
#: at most so many ended outboxes are told in one ATTACH; they must fit its 4 KiB
MAX_ENDED = 16

_PEER_ID = re.compile(r"[A-Za-z0-9._:@-]{1,64}\Z")
_U64 = 2**64 - 1


class Why:
    """Why an inbox's outbox ended, as told in ``ended``."""

    FINISHED: Final = 1
    EXPIRED: Final = 2
    ABORTED: Final = 3


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """What the other side announced: frame and message in bytes, idle in seconds."""

    frame: int
    message: int
    idle: float


@dataclass(frozen=True, slots=True)
class Hello:
    versions: tuple[int, int]
    peer_id: str
    to: str | None
    incarnation: bytes
    dial: int
    nonce: bytes
    features: tuple[str, ...]
    require: tuple[str, ...]
    auth: str
    key_id: str | None
    limits: PeerLimits
    codec: str
    agent: str = AGENT


@dataclass(frozen=True, slots=True)
class HelloAck:
    version: int
    peer_id: str
    incarnation: bytes
    nonce: bytes
    features: tuple[str, ...]
    auth: str
    limits: PeerLimits
    codec: str


@dataclass(frozen=True, slots=True)
class InboxFacts:
    """What a receiver says it holds of an outbox."""

    outbox_id: bytes
    run: bytes
    received: int
    read: int
    #: the highest ``first`` seen from that outbox
    first: int
    #: the last sequence that it settled, where that lies beyond ``received``: an earlier process did; else 0
    seen: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """The final positions of an inbox that was dropped, and why."""

    outbox_id: bytes
    run: bytes
    received: int
    read: int
    first: int
    why: int


@dataclass(frozen=True, slots=True)
class Attach:
    """One side's facts (specification, *Handshake*)."""

    outbox_id: bytes
    run: bytes
    first: int
    next: int
    inbox: InboxFacts | None
    ended: tuple[Ended, ...]
    durable: bool
    #: seconds without a connection after which the session ends; None = never
    expiry: float | None
    credit: int
    #: sent by the arbiter
    generation: int | None
    #: sent by the follower
    seen: int | None
    mac: bytes | None


# -- encoding ---------------------------------------------------------------------------------------------------------


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _limits_map(limits: PeerLimits) -> dict[str, object]:
    return {"frame": limits.frame, "message": limits.message, "idle": _milliseconds(limits.idle)}


def encode_hello(hello: Hello) -> bytes:
    """The HELLO frame."""
    fields: dict[str, object] = {
        "v": list(hello.versions),
        "id": hello.peer_id,
        "to": hello.to,
        "incarnation": hello.incarnation,
        "dial": hello.dial,
        "nonce": hello.nonce,
        "features": list(hello.features),
        "require": list(hello.require),
        "auth": hello.auth,
        "key_id": hello.key_id,
        "limits": _limits_map(hello.limits),
        "codec": hello.codec,
        "agent": hello.agent,
    }
    return encode_frame(HELLO, encode_map(fields))


def encode_hello_ack(ack: HelloAck) -> bytes:
    """The HELLO_ACK frame."""
    fields: dict[str, object] = {
        "v": ack.version,
        "id": ack.peer_id,
        "incarnation": ack.incarnation,
        "nonce": ack.nonce,
        "features": list(ack.features),
        "auth": ack.auth,
        "limits": _limits_map(ack.limits),
        "codec": ack.codec,
    }
    return encode_frame(HELLO_ACK, encode_map(fields))


def encode_attach(attach: Attach, sign: Callable[[bytes], bytes | None]) -> bytes:
    """The ATTACH frame; ``sign`` gets it with a zeroed mac and returns the mac, or None where the method has none."""
    inbox = attach.inbox
    fields: dict[str, object] = {
        "outbox": attach.outbox_id,
        "run": attach.run,
        "first": attach.first,
        "next": attach.next,
        "inbox": None
        if inbox is None
        else {
            "outbox": inbox.outbox_id,
            "run": inbox.run,
            "received": inbox.received,
            "read": inbox.read,
            "first": inbox.first,
            **({"seen": inbox.seen} if inbox.seen else {}),
        },
        "ended": [
            {
                "outbox": e.outbox_id,
                "run": e.run,
                "received": e.received,
                "read": e.read,
                "first": e.first,
                "why": e.why,
            }
            for e in attach.ended[:MAX_ENDED]
        ],
        "durable": attach.durable,
        "expiry": None if attach.expiry is None else _milliseconds(attach.expiry),
        "credit": attach.credit,
    }
    if attach.generation is not None:
        fields["generation"] = attach.generation
    else:
        fields["seen"] = attach.seen or 0
    body = encode_map({**fields, "mac": bytes(MAC_SIZE)})
    zeroed = encode_frame(ATTACH, body)
    mac = sign(zeroed)
    if mac is None:  # the last value of the map, and the two bytes before it that say how long it is, become nil
        return encode_frame(ATTACH, body[: -MAC_SIZE - 2] + b"\xc0")
    return zeroed[:-MAC_SIZE] + mac


def zero_mac(frame: bytes) -> bytes:
    """The raw ATTACH frame as its mac covers it: the mac is the last thing in it."""
    return frame[:-MAC_SIZE] + bytes(MAC_SIZE)


# -- parsing ----------------------------------------------------------------------------------------------------------


class _Fields:
    """Typed access to a decoded map; every complaint names the frame and the key."""

    __slots__ = ("_map", "_where")

    def __init__(self, where: str, mapping: dict[str, object]) -> None:
        self._where = where
        self._map = mapping

    def fault(self, key: str, what: str) -> PeerFault:
        return PeerFault(CloseCode.PROTOCOL, f"{self._where}: {key} {what}")

    def value(self, key: str) -> object:
        try:
            return self._map[key]
        except KeyError:
            raise self.fault(key, "is missing") from None

    def has(self, key: str) -> bool:
        return key in self._map

    def uint(self, key: str, least: int = 0, most: int = _U64) -> int:
        value = self.value(key)
        if type(value) is not int or not least <= value <= most:  # a bool is none
            raise self.fault(key, f"is not a number from {least} to {most}")
        return value

    def text(self, key: str, most: int = 64) -> str:
        value = self.value(key)
        if not isinstance(value, str) or len(value) > most:
            raise self.fault(key, f"is not a text of at most {most} characters")
        return value

    def optional_text(self, key: str) -> str | None:
        return None if self.value(key) is None else self.text(key)

    def peer_id(self, key: str) -> str:
        value = self.text(key)
        if not _PEER_ID.match(value):
            raise self.fault(key, f"{printable(repr(value))} is not a peer id")
        return value

    def binary(self, key: str, size: int) -> bytes:
        value = self.value(key)
        if not isinstance(value, bytes) or len(value) != size:
            raise self.fault(key, f"is not a binary of {size} bytes")
        return value

    def boolean(self, key: str) -> bool:
        value = self.value(key)
        if not isinstance(value, bool):
            raise self.fault(key, "is neither true nor false")
        return value

    def array(self, key: str) -> list[object]:
        value = self.value(key)
        if not isinstance(value, list):
            raise self.fault(key, "is not an array")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        items = self.array(key)
        if not all(isinstance(item, str) and len(item) <= 64 for item in items):
            raise self.fault(key, "is not an array of short texts")
        return tuple(str(item) for item in items)

    def inner(self, key: str) -> _Fields:
        return self.nested(key, self.value(key))

    def nested(self, key: str, value: object) -> _Fields:
        if not isinstance(value, dict):
            raise self.fault(key, "is not a map")
        return _Fields(f"{self._where}.{key}", value)


def _open(where: str, body: bytes) -> _Fields:
    try:
        return _Fields(where, decode_map(body))
    except ValueError as error:
        raise PeerFault(CloseCode.PROTOCOL, f"{where}: {printable(error)}") from None


def _limits(fields: _Fields) -> PeerLimits:
    limits = fields.inner("limits")
    return PeerLimits(
        frame=limits.uint("frame", 8 * 1024, 2**32 - 1),
        message=limits.uint("message", 1, 2**31),
        idle=limits.uint("idle", 100, 2**48) / 1000,
    )


def parse_hello(body: bytes) -> Hello:
    """HELLO's map as an object; raises PeerFault."""
    fields = _open("HELLO", body)
    versions = fields.array("v")
    match versions:
        case [int(least), int(most)] if type(least) is type(most) is int and least <= most:  # no bool
            pass
        case _:
            raise fields.fault("v", "is not [lowest, highest] version")
    choose_version((least, most))  # before anything else: a later version may change the other keys (P-HELLO-2)
    hello = Hello(
        versions=(least, most),
        peer_id=fields.peer_id("id"),
        to=None if fields.value("to") is None else fields.peer_id("to"),
        incarnation=fields.binary("incarnation", 16),
        dial=fields.uint("dial"),
        nonce=fields.binary("nonce", 32),
        features=fields.texts("features"),
        require=fields.texts("require"),
        auth=fields.text("auth"),
        key_id=fields.optional_text("key_id"),
        limits=_limits(fields),
        codec=fields.text("codec"),
        agent=fields.text("agent"),
    )
    if hello.to is None and "psk" in hello.auth:
        raise fields.fault("to", "is nil, but a pre-shared key needs to name the peer that is meant")
    return hello


def parse_hello_ack(body: bytes) -> HelloAck:
    """HELLO_ACK's map as an object; raises PeerFault."""
    fields = _open("HELLO_ACK", body)
    return HelloAck(
        version=fields.uint("v"),  # judged when the rest is in order (P-HACK-1)
        peer_id=fields.peer_id("id"),
        incarnation=fields.binary("incarnation", 16),
        nonce=fields.binary("nonce", 32),
        features=fields.texts("features"),
        auth=fields.text("auth"),
        limits=_limits(fields),
        codec=fields.text("codec"),
    )


def parse_attach(body: bytes) -> Attach:
    """ATTACH's map as an object, its numbers consistent with each other (verdict F); raises PeerFault."""
    fields = _open("ATTACH", body)
    first = fields.uint("first", 1, MAX_SEQUENCE)
    following = fields.uint("next", 1, MAX_SEQUENCE)
    if first > following:
        raise fields.fault("first", f"{first} is greater than next {following}")
    inbox = None if fields.value("inbox") is None else _inbox_facts(fields.inner("inbox"))
    ended = fields.array("ended")
    if len(ended) > MAX_ENDED:
        raise fields.fault("ended", f"has more than {MAX_ENDED} entries")
    generation = fields.uint("generation") if fields.has("generation") else None
    seen = fields.uint("seen") if fields.has("seen") else None
    if (generation is None) == (seen is None):
        raise fields.fault("generation", "and seen: exactly one of them must be there")
    return Attach(
        outbox_id=fields.binary("outbox", 16),
        run=fields.binary("run", 16),
        first=first,
        next=following,
        inbox=inbox,
        ended=tuple(_ended(fields.nested("ended", item)) for item in ended),
        durable=fields.boolean("durable"),
        expiry=None if fields.value("expiry") is None else fields.uint("expiry") / 1000,
        credit=fields.uint("credit"),
        generation=generation,
        seen=seen,
        mac=None if fields.value("mac") is None else fields.binary("mac", MAC_SIZE),
    )


def _positions(fields: _Fields) -> tuple[int, int, int]:
    received = fields.uint("received", 0, MAX_SEQUENCE)
    read = fields.uint("read", 0, MAX_SEQUENCE)
    if read > received:
        raise fields.fault("read", f"{read} is greater than received {received}")
    return received, read, fields.uint("first", 1, MAX_SEQUENCE)


def _inbox_facts(fields: _Fields) -> InboxFacts:
    received, read, first = _positions(fields)
    seen = fields.uint("seen", 1, MAX_SEQUENCE) if fields.has("seen") else 0
    if 0 < seen <= received:
        raise fields.fault("seen", f"{seen} is not greater than received {received}")
    return InboxFacts(fields.binary("outbox", 16), fields.binary("run", 16), received, read, first, seen)


def _ended(fields: _Fields) -> Ended:
    received, read, first = _positions(fields)
    why = fields.uint("why", 0, 255)
    return Ended(fields.binary("outbox", 16), fields.binary("run", 16), received, read, first, why)


def choose_version(versions: tuple[int, int]) -> int:
    """The highest version that both speak; raises PeerFault (code VERSION)."""
    if not versions[0] <= VERSION <= versions[1]:
        raise PeerFault(
            CloseCode.VERSION, f"the peer speaks versions {versions[0]} to {versions[1]}, this side only {VERSION}"
        )
    return VERSION


def frame_body(frame: bytes) -> bytes:
    """The body of a raw frame."""
    return frame[HEADER_SIZE:]
