"""A second implementation of protocol version 1, written from docs/protocol.md alone: a dialer, synchronous, in memory.

It imports nothing of networkio. Identifiers in comments are those of the page's rules. Left out: authentication,
journals, expiry, being the arbiter, what follows when one of the two has lost its memory (marks and new outboxes), a
strict judgement of the other side's maps, dialling by itself, and the extensions of the payload codec.
"""

import secrets
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import msgpack

PREAMBLE = b"NIO\0\r\n\1\0"
HELLO, HELLO_ACK, ATTACH, DATA, ACK, SKIP, REJECT, FIN = 0x01, 0x02, 0x03, 0x10, 0x11, 0x12, 0x13, 0x14
PING, PONG, CLOSE = 0x20, 0x21, 0x30
BODY = {DATA: (8, 2**32), ACK: (32, 32), SKIP: (18, 18), REJECT: (26, 538), FIN: (8, 8), PING: (8, 8), PONG: (8, 8),
        CLOSE: (10, 522), **dict.fromkeys((HELLO, HELLO_ACK, ATTACH), (0, 4094))}  # fmt: skip
FLAGS = {DATA: 0x5F, CLOSE: 0x01}
MORE, CONTINUED, HEADERS, RAW = 0x01, 0x02, 0x10, 0x40
NORMAL, COLLISION, AUTH_FAILED, VERSION, PROTOCOL, FLOW, TOO_LARGE, TIMEOUT = 0, 3, 6, 7, 8, 9, 10, 11
RETRY, WRONG_PEER, CODEC = 15, 16, 17
LIMITS = {"frame": 65536, "message": 16777216, "idle": 45000}
WINDOW, TOP = 262144, 2**63 - 1


class Closed(Exception):
    """The connection is over. ``code`` is that of the CLOSE, None where there was none."""

    def __init__(self, code: int | None, text: str = "", resumable: bool = True) -> None:
        super().__init__(code, text, resumable)
        self.code, self.text, self.resumable = code, text, resumable


class Fault(Exception):
    """To be answered with CLOSE; the arguments are its code and text."""


def fault(text: str, code: int = PROTOCOL) -> NoReturn:
    raise Fault(code, text)


@dataclass
class Entry:
    """One sequence of the own outbox; with an outcome it is a tombstone."""

    kind: int
    flags: int = 0
    header: bytes = b""
    payload: bytes = b""
    outcome: str = ""
    reason: int = 1  # of the SKIP


@dataclass
class Message:
    """One message of the peer; ``missing`` are the SKIPs before it: first, last, reason."""

    sequence: int
    flags: int
    total: int
    headers: dict[str, Any]
    payload: bytes
    missing: list[tuple[int, int, int]]

    @property
    def data(self) -> Any:
        return self.payload if self.flags & RAW else msgpack.unpackb(self.payload, strict_map_key=False)


@dataclass
class Inbox:
    """What is held of the peer's outbox."""

    outbox: bytes
    received: int
    read: int
    first: int
    run: bytes = b""  # none before something was taken (P-ATT-2)
    fin: int | None = None
    held: dict[int, Message] = field(default_factory=dict)  # not settled
    rejected: dict[int, tuple[int, str, int]] = field(default_factory=dict)  # code, text, cost
    missing: list[tuple[int, int, int]] = field(default_factory=list)

    def settle(self) -> None:
        self.read = min(self.held, default=self.received + 1) - 1

    def passed(self, first: int) -> None:
        """The peer retains nothing below ``first``."""
        self.first = max(self.first, first)
        self.rejected = {sequence: why for sequence, why in self.rejected.items() if sequence >= self.first}

    def echo(self) -> dict[str, Any]:
        read = min([self.read, *(sequence - 1 for sequence in self.rejected)])  # P-REJECT-6
        return {"outbox": self.outbox, "run": self.run, "received": self.received, "read": read, "first": self.first}


class DryRunPeer:
    """Dials ``peer`` and talks to it. Things happen only within connect, pump, wait, receive and close."""

    def __init__(self, own_id: str, peer: str, port: int) -> None:
        assert own_id.encode() < peer.encode(), "the greater id would be the arbiter"
        self.id, self.peer, self.port = own_id, peer, port
        self.incarnation, self.run = secrets.token_bytes(16), secrets.token_bytes(16)
        self.dials = 0
        self.seen: dict[bytes, int] = {}  # the highest generation taken from each incarnation
        self.ended: list[dict[str, Any]] = []
        self.inbox: Inbox | None = None
        self.queue: list[Message] = []  # for the application
        self.outcomes: dict[int, str] = {}
        self.rejections: dict[int, tuple[int, str]] = {}  # that the peer told
        self.pongs: list[bytes] = []
        self.finished = False
        self.sock = socket.socket()
        self.sock.close()
        self._new_outbox()

    def _new_outbox(self) -> None:
        self.outbox, self.entries = secrets.token_bytes(16), dict[int, Entry]()
        self.first = self.next = self.cursor = 1
        self.begun = 0  # bytes of the incomplete message at the cursor that are sent
        self.sent = 0  # the highest sequence ever transmitted completely

    # --- what an application does

    def send(self, data: Any = None, *, encoded: bytes | None = None, raw: bool = False, **headers: Any) -> int:
        """Append an object, raw bytes, or bytes that are encoded already; its sequence."""
        payload = encoded or (data if raw else msgpack.packb(data))
        return self._append(Entry(DATA, RAW * raw, msgpack.packb(headers) if headers else b"", payload))

    def end(self) -> int:
        return self._append(Entry(FIN))

    def cancel(self, sequence: int) -> bool:
        if sequence < self.cursor + (self.begun > 0):
            return False  # P-SKIP-6: sent since the latest verdict
        self._outcome(sequence, "CANCELLED", 3)
        return True

    def receive(self) -> Message:
        self.wait(lambda: bool(self.queue))
        return self.queue.pop(0)

    def ack(self, message: Message) -> None:
        assert self.inbox
        del self.inbox.held[message.sequence]
        self.inbox.settle()

    def reject(self, message: Message, code: int = 0, text: str = "") -> None:
        assert self.inbox
        if message.sequence >= self.inbox.first:  # P-REJECT-7
            self.inbox.rejected[message.sequence] = (code, text, 64 + message.total)
        self.ack(message)

    def ping(self, opaque: bytes) -> None:
        self._send(PING, opaque)

    def _append(self, entry: Entry) -> int:
        self.entries[self.next] = entry
        self.next += 1
        return self.next - 1

    def _outcome(self, sequence: int, outcome: str, reason: int = 1) -> None:
        entry = self.entries[sequence]
        if not entry.outcome:
            entry.outcome, entry.reason = outcome, reason
            self.outcomes[sequence] = outcome

    # --- connections

    def connect(self) -> None:
        self._guard(self._handshake)
        self.pump()

    def cut(self) -> None:
        """Lose the connection without a word."""
        self.sock.close()

    def close(self, code: int = NORMAL, text: str = "", resumable: bool = True) -> Closed:
        try:
            self._send(CLOSE, struct.pack(">HQ", code, 0) + text.encode(), int(resumable))
            self.sock.shutdown(socket.SHUT_WR)  # P-CLOSE-3
            self.sock.settimeout(1)
            while self.sock.recv(65536):
                pass
        except OSError:
            pass
        self.cut()
        return Closed(code, text, resumable)

    def pump(self, timeout: float = 0.0) -> None:
        """Take what comes within ``timeout``, and write what is due."""
        self._guard(lambda: self._pump(timeout))

    def wait(self, condition: Callable[[], bool], timeout: float = 5.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError
            self.pump(0.02)

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Fault as wrong:
            raise self.close(*wrong.args) from None
        except (EOFError, OSError) as error:
            self.cut()
            raise Closed(None) from error

    def _pump(self, timeout: float) -> None:
        more = True
        while more:
            while frame := self._frame(timeout):
                self._on_frame(*frame)
                timeout = 0
            self._control()
            more = self._transmit()
            timeout = 0

    def _send(self, kind: int, body: bytes, flags: int = 0) -> None:
        self.sock.sendall(struct.pack(">IBB", len(body) + 2, kind, flags) + body)
        self.spoke = time.monotonic()

    def _have(self, size: int, timeout: float) -> bool:
        """Are ``size`` bytes there before the time is over?"""
        deadline = time.monotonic() + timeout
        while len(self.buffer) < size:
            if not select.select([self.sock], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return False
            chunk = self.sock.recv(65536)
            if not chunk:
                raise EOFError
            self.buffer += chunk
            self.heard = time.monotonic()
        return True

    def _frame(self, timeout: float) -> tuple[int, int, bytes] | None:
        if not self._have(6, timeout):
            return None
        length, kind, flags = struct.unpack_from(">IBB", self.buffer)
        bound = LIMITS["frame"] if self.live else 4096
        if length > bound:
            fault("frame", TOO_LARGE)
        low, high = BODY.get(kind, (0, bound))
        if not low <= length - 2 <= high:
            fault("length")
        if not self._have(4 + length, timeout):
            return None
        body = bytes(self.buffer[6 : 4 + length])
        del self.buffer[: 4 + length]
        return kind, flags, body

    # --- handshake

    def _handshake(self) -> None:
        self.sock = socket.create_connection(("127.0.0.1", self.port), 5)
        self.buffer, self.live, self.heard = bytearray(), False, time.monotonic()
        self.used_here = self.used_there = 0  # costs of what was taken, of what was sent
        self.partial: Message | None = None
        self.pings: list[bytes] = []  # to be answered
        self.owes_ack, self.rejects_told = False, set[int]()
        self.dials += 1
        self.sock.sendall(PREAMBLE)
        self._send(HELLO, msgpack.packb({
            "v": [1, 1], "id": self.id, "to": self.peer, "incarnation": self.incarnation, "dial": self.dials,
            "nonce": secrets.token_bytes(32), "features": [], "require": [], "auth": "insecure", "key_id": None,
            "limits": LIMITS, "codec": "msgpack", "agent": "dry-run/1"}))  # fmt: skip
        if not self._have(8, 5):
            fault("no answer", TIMEOUT)
        preamble = bytes(self.buffer[:8])
        del self.buffer[:8]
        if preamble != PREAMBLE:
            fault("framing", VERSION) if preamble[:6] == PREAMBLE[:6] else self._lost()
        hello = self._expect(HELLO_ACK)
        for key, own, code in (("v", 1, VERSION), ("id", self.peer, WRONG_PEER), ("features", [], PROTOCOL),
                               ("auth", "insecure", AUTH_FAILED), ("codec", "msgpack", CODEC)):  # fmt: skip
            if hello.get(key) != own:
                fault(key, code)  # P-HACK-1
        seen = self.seen.get(hello["incarnation"], 0)
        self.stated = (0, 0, max(0, WINDOW - self._unsettled()))  # received, read and credit as the peer was told
        self._send(ATTACH, msgpack.packb({
            "outbox": self.outbox, "run": self.run, "first": self.first, "next": self.next,
            "inbox": self.inbox.echo() if self.inbox and self.inbox.run else None, "ended": self.ended,
            "durable": False, "expiry": None, "credit": self.stated[2], "seen": seen, "mac": None}))  # fmt: skip
        attach = self._expect(ATTACH)
        if attach["mac"] is not None or attach["generation"] <= seen:
            fault("ATTACH", COLLISION if attach["mac"] is None else AUTH_FAILED)  # P-AUTH-4, P-ARB-16
        self._verdict(attach["inbox"], attach["ended"])
        self.seen[hello["incarnation"]] = attach["generation"]
        self.limits, self.peer_run, self.credit, self.live = hello["limits"], attach["run"], attach["credit"], True
        if not self.inbox or self.inbox.outbox != attach["outbox"] or not self.inbox.run:  # P-RES-4
            self.inbox = Inbox(attach["outbox"], attach["first"] - 1, attach["first"] - 1, attach["first"])
        self.inbox.passed(attach["first"])
        self.stated = (self.inbox.received, self.inbox.echo()["read"], self.stated[2])
        if self.finished:
            raise self.close(NORMAL, resumable=False)  # P-END-6

    def _lost(self) -> NoReturn:
        raise EOFError

    def _expect(self, kind: int) -> dict[str, Any]:
        frame = self._frame(5) or fault("handshake", TIMEOUT)
        if frame[0] == CLOSE:
            self._on_frame(*frame)
        return self._map(frame[2]) if frame[:2] == (kind, 0) else fault("unexpected frame")

    def _map(self, body: bytes) -> dict[str, Any]:
        try:
            found = msgpack.unpackb(body)
        except ValueError:
            fault("not a map")
        return found if type(found) is dict else fault("not a map")

    def _verdict(self, echo: dict[str, Any] | None, ended: list[dict[str, Any]]) -> None:
        """What the peer holds of the own outbox (P-RES-11); it has lost nothing that it once told."""
        if any(gone["outbox"] == self.outbox for gone in ended):
            fault("case G", RETRY)
        self.cursor, self.begun = self.first, 0
        if echo and echo["outbox"] == self.outbox:
            if echo["run"] != self.run or not self.first - 1 <= echo["received"] < self.next:
                fault("case C or D", RETRY)
            self.cursor = echo["received"] + 1
            self._positions(echo["received"], echo["read"])

    # --- sending

    def _unsettled(self) -> int:
        messages = [*self.inbox.held.values()] if self.inbox else []
        messages += [self.partial] if self.partial else []
        rejected = sum(cost for _, _, cost in self.inbox.rejected.values()) if self.inbox else 0
        return rejected + sum(64 + message.total for message in messages)

    def _control(self) -> None:
        """PONG, PING, REJECT and ACK as far as they are due; then perhaps the session is over."""
        if time.monotonic() - self.heard > LIMITS["idle"] / 1000:
            fault("silence", TIMEOUT)
        if self.pings:
            self._send(PONG, self.pings.pop())
            self.pings.clear()
        if time.monotonic() - self.spoke > self.limits["idle"] * 4 / 9000:
            self._send(PING, secrets.token_bytes(8))
        inbox = self.inbox
        if self.finished or not inbox:
            return
        for sequence, (code, text, _) in inbox.rejected.items():
            if sequence not in self.rejects_told:
                self._send(REJECT, inbox.outbox + struct.pack(">QH", sequence, code) + text.encode())
                self.rejects_told.add(sequence)
        credit = max(self.stated[2], self.used_here + WINDOW - self._unsettled())  # P-CRED-5
        state = (inbox.received, inbox.read, credit)
        if self.owes_ack or any(now > told for now, told in zip(state, self.stated, strict=True)):
            self._send(ACK, struct.pack(">QQQQ", *state, self.first))
            self.stated, self.owes_ack = state, False
        self._finish()

    def _finish(self) -> None:
        """P-END-2 and P-END-3: both FINs are read, and the peer was told."""
        inbox, own_fin_read = self.inbox, self.first == self.next and self.outcomes.get(self.next - 1) == "FIN"
        if own_fin_read and inbox and inbox.fin and self.stated[1] >= inbox.fin and not inbox.rejected:
            self.ended = [{**inbox.echo(), "why": 1}, *self.ended][:16]
            self.inbox, self.finished = None, True
            self._new_outbox()

    def _transmit(self) -> bool:
        """Send one frame of what is at the cursor, if there is something and credit for it."""
        if self.cursor == self.next or (not self.begun and self.used_there >= self.credit):  # P-CRED-3
            return False
        entry, sequence = self.entries[self.cursor], struct.pack(">Q", self.cursor)
        total, room = len(entry.header) + len(entry.payload), self.limits["frame"] - 10
        if not self.begun:
            if total > self.limits["message"]:
                self._outcome(self.cursor, "LOST", 4)  # P-DATA-13
            self.used_there += 64 if entry.outcome else 64 + total
        if entry.kind == FIN:
            self._send(FIN, sequence)
        elif entry.outcome and not self.begun:
            self._send(SKIP, sequence + sequence + struct.pack(">H", entry.reason))
        else:
            flags, start = CONTINUED, b""
            if not self.begun:
                flags = entry.flags | (HEADERS if entry.header else 0)
                start = struct.pack(">H", len(entry.header)) + entry.header if entry.header else b""
                if len(start) + len(entry.payload) > room:
                    start = struct.pack(">I", total) + start
                self.begun = len(entry.header)
            piece = entry.payload[self.begun - len(entry.header) :][: room - len(start)]
            self.begun += len(piece)
            more = self.begun < total
            self._send(DATA, sequence + start + piece, flags | MORE * more)
            if more:
                return True
        self.sent = max(self.sent, self.cursor)
        self.cursor, self.begun = self.cursor + 1, 0
        return True

    def _positions(self, received: int, read: int) -> None:
        """P-ACK-3, P-ACK-8, P-ACK-9."""
        if received > max(self.sent, self.first - 1):
            fault("ACK of what was never sent")
        if self.begun and received >= self.cursor:
            return  # P-DATA-6 lets nobody stop in the middle; the ACK of the duplicate says it again
        for sequence in range(self.first, read + 1):
            self._outcome(sequence, "FIN" if self.entries[sequence].kind == FIN else "READ")
            del self.entries[sequence]
            self.owes_ack |= sequence in self.rejections  # P-REJECT-8
        self.first, self.cursor = max(self.first, read + 1), max(self.cursor, received + 1)

    # --- receiving

    def _on_frame(self, kind: int, flags: int, body: bytes) -> None:
        if kind >= 0x80 or (self.finished and kind not in (PING, CLOSE)):  # P-FRAME-8, P-END-5
            return
        if flags & ~FLAGS.get(kind, 0):
            fault("flags")
        if kind == PING:
            self.pings.append(body)
        elif kind == PONG:
            self.pongs.append(body)
        elif kind == ACK:
            self._on_ack(*struct.unpack(">QQQQ", body))
        elif kind == REJECT:
            self._on_reject(*struct.unpack(f">16sQH{len(body) - 26}s", body))
        elif kind == DATA:
            self._on_data(flags, int.from_bytes(body[:8], "big"), body[8:])
        elif kind == SKIP:
            self._on_skip(*struct.unpack(">QQH", body))
        elif kind == FIN:
            sequence = int.from_bytes(body, "big")
            inbox, new = self._comes(sequence, 64)
            inbox.fin = sequence if new else inbox.fin
            self._taken(inbox, sequence)
        elif kind == CLOSE:
            self.cut()
            raise Closed(int.from_bytes(body[:2], "big"), body[10:].decode(errors="replace"), flags == 1)
        else:
            fault("type")

    def _on_ack(self, received: int, read: int, credit: int, first: int) -> None:
        if read > received or first > TOP or not self.inbox:
            fault("ACK")
        self.credit = max(self.credit, credit)
        self._positions(received, read)
        self.inbox.passed(first)
        self._finish()

    def _on_reject(self, outbox: bytes, sequence: int, code: int, text: bytes) -> None:
        if outbox != self.outbox or sequence < self.first:
            return
        if sequence > self.sent:
            fault("REJECT of what was never sent")
        if self.entries[sequence].kind == DATA and not self.entries[sequence].outcome:
            self._outcome(sequence, "REJECTED")
            self.rejections[sequence] = (code, text.decode(errors="replace"))

    def _comes(self, sequence: int, cost: int) -> tuple[Inbox, bool]:
        """An entry begins. May it, and is it new?"""
        inbox = self.inbox or fault("no inbox")
        if not 0 < sequence <= inbox.received + 1 or self.partial or (inbox.fin and sequence > inbox.fin):
            fault("sequence")
        if self.used_here >= self.stated[2]:
            fault("no credit", FLOW)
        self.used_here += cost
        return inbox, sequence > inbox.received

    def _taken(self, inbox: Inbox, last: int) -> None:
        if last > inbox.received:
            inbox.received, inbox.run = last, self.peer_run  # P-RUN-3
            inbox.settle()

    def _on_skip(self, first: int, last: int, reason: int) -> None:
        inbox, _ = self._comes(first, 64)
        if not first <= last <= (inbox.fin or TOP):
            fault("SKIP")
        if last > inbox.received:
            inbox.missing.append((inbox.received + 1, last, reason))
            self._taken(inbox, last)

    def _on_data(self, flags: int, sequence: int, rest: bytes) -> None:
        if flags & CONTINUED:
            message = self.partial or fault("continues nothing")
            if flags & ~(MORE | CONTINUED) or message.sequence != sequence or not rest:
                fault("fragment")
        else:
            total, header = len(rest), b""
            if flags & MORE:
                total, rest = int.from_bytes(rest[:4], "big"), rest[4:]
            if flags & HEADERS:
                size = int.from_bytes(rest[:2], "big")
                header, rest = rest[2 : 2 + size], rest[2 + size :]
                if len(header) < size or not size:
                    fault("header")
                total -= 0 if flags & MORE else 2
            if total > LIMITS["message"] + 64:
                fault("message", TOO_LARGE)
            self._comes(sequence, 64 + total)
            message = Message(sequence, flags & ~MORE, total, self._map(header) if header else {}, b"", [])
            self.missing_bytes = total - len(header)
        self.missing_bytes -= len(rest)
        if self.missing_bytes < 0 or (self.missing_bytes > 0) != bool(flags & MORE):
            fault("total")
        message.payload += rest
        self.partial = message if flags & MORE else None
        if self.inbox and not flags & MORE and sequence > self.inbox.received:
            message.missing, self.inbox.missing = self.inbox.missing, []
            self.inbox.held[sequence] = message
            self.queue.append(message)
            self._taken(self.inbox, sequence)
