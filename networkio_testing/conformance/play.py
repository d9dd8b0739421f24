"""Plays one script: says what it says, and compares what comes with what it expects.

Theory of operation
-------------------
A :class:`Player` walks over the steps of a case.  Where they happen is a :class:`Stage`: the bare core with a virtual
clock, or sockets.  A stage opens byte streams (:class:`Stream`) and lets time pass; everything about frames is here, by
the runner's own codec.

What a script leaves open: ACKs and PINGs may stand between the frames that it expects, for when they are sent is a
matter of taste; an ACK that is expected may have come earlier, and other frames may come before it.  DATA, SKIP and FIN
keep their order, and so do PONG and REJECT, but of these two streams either may overtake the other (P-TIME-8).  What is
still on the way when CLOSE comes need not be expected.  ``never`` forbids what must not come at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from . import codec
from .codec import Frame, Malformed
from .script import Case, Step
from .values import Condition, ScriptError, condition, evaluate, split

__all__ = ["Failure", "Line", "Player", "Stage", "Stream"]

#: what may stand between expected frames
_ANYWHERE = frozenset({"ACK", "PING"})

#: frames that keep their order among each other only
_STREAMS = (frozenset({"DATA", "SKIP", "FIN"}), frozenset({"PONG", "REJECT"}))

class Failure(Exception):
    """The implementation did something else than the script expects."""


class Stream(Protocol):
    """The tester's end of one byte stream."""

    def write(self, data: bytes) -> None:
        """Send bytes; what cannot be sent any more is lost."""

    def read(self, limit: float) -> bytes | None:
        """The bytes that come next: empty at the end of the stream, None if nothing comes within ``limit`` seconds."""

    def shut(self) -> None:
        """End the tester's direction of the stream."""

    def cut(self) -> None:
        """Break the stream."""


class Stage(Protocol):
    """Where a script is played."""

    #: seconds that an expected frame may take, unless the script says otherwise
    patience: float

    def open(self, role: str) -> Stream:
        """A new byte stream on which the implementation has the role.  Raises Failure."""

    def now(self) -> float:
        """Seconds on a clock that never goes back."""

    def advance(self, seconds: float) -> None:
        """Let time pass."""

    def peer_id(self, name: str, arbiter: bool) -> str:
        """The peer id to be used for the tester of that name."""

    def command(self, words: list[str], value: Callable[[str], Any], peer_id: str) -> dict[str, Any]:
        """The application of the implementation does something; names for the script.  Raises Failure."""


class Tester:
    """One peer that the script plays: the facts that its handshakes state."""

    def __init__(self, peer_id: str, arbiter: bool, number: int) -> None:
        self.peer_id, self.arbiter, self._number = peer_id, arbiter, number
        self._life = 0
        self.restart()

    def restart(self) -> None:
        """It is another process from now on, that knows nothing of the one before."""
        self._life += 1
        mark = self._number * 16 + self._life
        self.incarnation, self.outbox, self.run = (bytes([base + mark]) * 16 for base in (0x20, 0x60, 0xA0))
        self.dial = self.generation = 0
        #: the highest generation seen, by the incarnation of the implementation
        self.seen: dict[bytes, int] = {}

    def names(self) -> dict[str, Any]:
        """Its facts, as a script reads them."""
        return {
            "peer": self.peer_id, "outbox": self.outbox, "run": self.run, "incarnation": self.incarnation,
            "dial": self.dial, "generation": self.generation,
        }  # fmt: skip


class Line:
    """One connection of the script: what came on it and was not looked at yet."""

    def __init__(self, stream: Stream, tester: Tester) -> None:
        self.stream, self.tester = stream, tester
        self.buffer = bytearray()
        self.preamble = False
        self.ended = False
        self.closed: Frame | None = None
        #: frames that were overtaken by one of another kind that was expected
        self.kept: list[Frame] = []
        #: the newest ACK that nobody expected yet
        self.ack: Frame | None = None
        self.said = self.heard = b""
        self.mac = b""


class Player:
    """Plays ``case`` on ``stage``."""

    def __init__(self, case: Case, stage: Stage) -> None:
        self.case, self.stage = case, stage
        self.role = case.role
        self.names: dict[str, Any] = {}
        self.testers: dict[str, Tester] = {}
        self.lines: dict[str, Line] = {}
        self.forbidden: list[tuple[str, list[Condition]]] = []
        self.key: bytes | None = None
        self._gathered: list[bytes] | None = None
        self._chunk = 0
        self._line: Line | None = None
        self._step: Step | None = None
        self._use("me", case.arbiter)

    def run(self) -> None:
        """Play it to its end.  Raises Failure, with the line of the script, or ScriptError."""
        for step in self.case.steps:
            self._step = step
            try:
                self._do(step.text)
            except (Failure, Malformed) as error:
                where = f"{self.case.chapter}.script, line {step.line}"
                raise Failure(f"{where}: {step.text}\n    {error}") from error
            except ScriptError as error:
                raise ScriptError(f"{self.case.chapter}.script, line {step.line}: {error}") from error

    # -- steps ----------------------------------------------------------------------------------------------------

    def _do(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if word == "I>":
            self._say(rest)
        elif word == "E<":
            self._expect(rest.strip())
        elif word == "A:":
            self.names.update(self.stage.command(split(rest), self._value, self.tester.peer_id))
        elif word.startswith("T+"):
            self.stage.advance(float(word[2:].removesuffix("s")))
        elif word == "check":
            if not self._value(rest):
                raise Failure(f"that does not hold; {self._seen(rest)}")
        elif word == "never":
            name, *conditions = split(rest)
            self.forbidden.append((name, [condition(item) for item in conditions]))
        elif word == "peer":
            self._peer(*rest.split())
        elif word == "let":
            name, _, value = rest.partition("=")
            self.names[f"bound_{name.strip().removeprefix('$')}"] = self._value(value)
        elif word == "key":
            self.key = self._value(rest)
        else:
            self._connection(word, rest)

    def _connection(self, word: str, rest: str) -> None:
        if word == "new":
            self._open(rest.removeprefix("connection").strip() or "a")
        elif word == "on":
            self._line = self.lines[rest.strip()]
        elif word == "cut":
            self.line.stream.cut()
        elif word == "shut":
            self.line.stream.shut()
        elif word == "role":
            self.role = rest.strip()
        elif word == "allow":
            self.forbidden.clear()
        elif word == "gather":
            self._gathered = []
        elif word == "flush":
            gathered, self._gathered = self._gathered or [], None
            self._write(b"".join(gathered))
        elif word == "split":
            self._chunk = int(rest)
        elif word in ("live", "claim"):
            self._handshake(split(rest), claim=word == "claim")
        elif word == "attach":
            self._attach_claimed(split(rest))
        else:
            raise ScriptError(f"{word} is no step")

    def _peer(self, name: str, role: str = "") -> None:
        if name == "restarts":
            self.tester.restart()
            self._refresh()
        else:
            self._use(name, role == "arbiter" if role else self.case.arbiter)

    def _use(self, name: str, arbiter: bool) -> None:
        if name not in self.testers:
            self.testers[name] = Tester(self.stage.peer_id(name, arbiter), arbiter, len(self.testers))
        self.tester = self.testers[name]
        self._refresh()

    def _refresh(self) -> None:
        self.names["my"] = self.tester.names()

    @property
    def line(self) -> Line:
        """The connection that is talked about."""
        if self._line is None:
            raise ScriptError("there is no connection yet")
        return self._line

    def _value(self, text: str) -> Any:
        return evaluate(text, self.names)

    def _seen(self, text: str) -> str:
        return ", ".join(f"{name}: {value}" for name, value in self.names.items() if f"{name}." in text)

    # -- saying ---------------------------------------------------------------------------------------------------

    def _open(self, name: str) -> None:
        self._line = self.lines[name] = Line(self.stage.open(self.role), self.tester)

    def _say(self, text: str) -> None:
        words = split(text)
        if words[0] in ("PREAMBLE", "preamble"):
            self._send(codec.PREAMBLE)
        elif words[0] == "hex":
            self._send(bytes.fromhex("".join(words[1:])))
        elif words[0] == "bytes":
            self._send(self._value(" ".join(words[1:])))
        else:
            count = 1
            if words[-1].startswith("x") and words[-1][1:].isdigit():
                count, words = int(words[-1][1:]), words[:-1]
            for _ in range(count):
                self._send(self._frame(words[0], self._fields(words[1:])))

    def _fields(self, words: list[str]) -> dict[str, Any]:
        fields = {}
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                raise ScriptError(f"{word!r} is not key=value")
            fields[key] = self._value(value)
        return fields

    def _frame(self, name: str, fields: dict[str, Any]) -> bytes:
        natural: dict[str, Any] = {}
        raw = {"body", "type"} & fields.keys()
        if name == "HELLO" and not raw:
            natural = self._hello()
        elif name == "HELLO_ACK" and not raw:
            natural = self._hello_ack()
        elif name == "ATTACH" and not raw:
            natural = self._attach()
        if not natural:
            return codec.build(name, fields)
        limits = {key.removeprefix("limits."): fields.pop(key) for key in list(fields) if key.startswith("limits.")}
        if limits:
            natural["limits"] = {**natural["limits"], **limits}
        special: dict[str, Any] = {key: fields.pop(key) for key in ("flags", "length", "more") if key in fields}
        last = fields.pop("last", None)  # a key that is moved to the end of the map
        values = {**{key: value for key, value in natural.items() if key != "mac"}, **fields}
        if "mac" in natural:
            values["mac"] = fields.get("mac", values.pop("mac", natural["mac"]))
        if last is not None:
            values[last] = values.pop(last)
        frame = codec.build(name, {**values, **special})
        return self._sign(frame) if name == "ATTACH" and values.get("mac") == bytes(32) else frame

    def _hello(self) -> dict[str, Any]:
        tester = self.tester
        tester.dial += 1
        self._refresh()
        return {
            "v": [1, 1], "id": tester.peer_id, "to": None if self.key is None else self.names.get("node", "m"),
            "incarnation": tester.incarnation, "dial": tester.dial, "nonce": bytes([tester.dial % 256]) * 32,
            "features": [], "require": [], "auth": "insecure" if self.key is None else "psk", "key_id": None,
            "limits": {"frame": 65536, "message": 16777216, "idle": 45000}, "codec": "msgpack",
            "agent": "conformance/1",
        }  # fmt: skip

    def _hello_ack(self) -> dict[str, Any]:
        hello = self._hello()
        keys = ("id", "incarnation", "nonce", "features", "auth", "limits", "codec")
        return {"v": 1, **{key: hello[key] for key in keys}}

    def _attach(self) -> dict[str, Any]:
        tester, other = self.tester, self.names.get("hello_ack" if self.role == "acceptor" else "hello", {})
        if tester.arbiter:
            tester.generation += 1
            self._refresh()
            order = {"generation": tester.generation}
        else:
            order = {"seen": tester.seen.get(other.get("incarnation", b""), 0)}
        return {
            "outbox": tester.outbox, "run": tester.run, "first": 1, "next": 1, "inbox": None, "ended": [],
            "durable": False, "expiry": None, "credit": 262144, **order, "mac": None if self.key is None else bytes(32),
        }  # fmt: skip

    def _sign(self, frame: bytes) -> bytes:
        """Put the mac into an ATTACH whose own is zero."""
        line, me, node = self.line, self.tester.peer_id, self.names["node"]
        dialer = self.role == "acceptor"
        ids = (me, node) if dialer else (node, me)
        transcript = line.said + line.heard if dialer else line.heard + line.said
        first = b"" if dialer else self.names["attach"]["mac"]
        proof = codec.mac(self.key or b"", b"D" if dialer else b"A", ids, transcript, frame, first)
        line.mac = proof
        return frame[:-32] + proof

    def _send(self, data: bytes) -> None:
        if self._gathered is not None:
            self._gathered.append(data)
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        line = self.line
        line.said += data
        step = self._chunk or max(1, len(data))
        for start in range(0, len(data), step):
            line.stream.write(data[start : start + step])

    # -- the handshake in one word --------------------------------------------------------------------------------

    def _handshake(self, words: list[str], *, claim: bool) -> None:
        """``live``: a connection that went live; the words change the tester's ATTACH, ``hello.`` its HELLO."""
        name = words.pop(0) if words and "=" not in words[0] else "a"
        hello = [word.removeprefix("hello.") for word in words if word.startswith("hello.")]
        rest = [word for word in words if not word.startswith("hello.")]
        self._open(name)
        if self.role == "acceptor":
            self._write(codec.PREAMBLE + self._frame("HELLO", self._fields(hello)))
            self._expect("PREAMBLE")
            self._expect("HELLO_ACK")
            if not claim:
                self._write(self._frame("ATTACH", self._fields(rest)))
                self._expect("ATTACH")
        else:
            self._expect("PREAMBLE")
            self._expect("HELLO")
            self._write(codec.PREAMBLE + self._frame("HELLO_ACK", self._fields(hello)))
            self._expect("ATTACH")
            if not claim:
                self._write(self._frame("ATTACH", self._fields(rest)))

    def _attach_claimed(self, words: list[str]) -> None:
        """``attach``: what is left of a connection that was claimed."""
        self._write(self._frame("ATTACH", self._fields(words)))
        if self.role == "acceptor":
            self._expect("ATTACH")

    # -- expecting ------------------------------------------------------------------------------------------------

    def _expect(self, text: str) -> None:
        words, limit = split(text), self.stage.patience
        if len(words) > 2 and words[-2] == "within":
            limit, words = float(words[-1].removesuffix("s")), words[:-2]
        what, conditions = words[0], words[1:]
        if what == "PREAMBLE":
            self._expect_preamble(limit)
        elif what == "nothing":
            self._expect_nothing(limit)
        elif what == "eof":
            self._expect_eof(limit)
        elif what == "closed":
            self._expect_close(conditions, limit)
        elif what == "dial" or what == "no":
            self.names.update(self.stage.command([f"expect-{what}", str(limit)], self._value, self.tester.peer_id))
        else:
            self._expect_frame(what, [condition(word) for word in conditions], limit)

    def _expect_preamble(self, limit: float) -> None:
        line = self.line
        deadline = self.stage.now() + limit
        while len(line.buffer) < 8:
            if not self._read(deadline):
                raise Failure("the stream ended, or nothing came; there was no preamble")
        found = bytes(line.buffer[:8])
        del line.buffer[:8]
        line.heard += found
        line.preamble = True
        if found != codec.PREAMBLE:
            raise Failure(f"the preamble is {found.hex(' ')}")

    def _expect_frame(self, name: str, conditions: list[Condition], limit: float) -> None:
        line = self.line
        wanted = " ".join([name, *map(str, conditions)])
        if name == "ACK" and line.ack is not None and self._matches(line.ack, conditions):
            self._found(line.ack)
            line.ack = None
            return
        stream = next((names for names in _STREAMS if name in names), frozenset({name}))
        for frame in line.kept:
            if frame.name in stream:
                line.kept.remove(frame)
                self._compare(frame, name, conditions)
                return
        deadline, last = self.stage.now() + limit, None
        while (got := self._next(deadline)) is not None:
            if got.name == "ACK" == name and not self._matches(got, conditions):
                last = got
            elif got.name in stream:
                self._compare(got, name, conditions)
                return
            elif got.name in _ANYWHERE:
                line.ack = got if got.name == "ACK" else line.ack
            elif any(got.name in names for names in _STREAMS):
                line.kept.append(got)
            else:
                raise Failure(f"{got} came, where {wanted} was expected")
        came = "the stream ended" if line.ended else f"nothing more came within {limit:g} s"
        passed = [*line.kept, *([last] if last else [])]
        raise Failure(f"{came}, where {wanted} was expected; before it came {', '.join(map(str, passed)) or 'nothing'}")

    def _compare(self, frame: Frame, name: str, conditions: list[Condition]) -> None:
        if frame.name != name:
            raise Failure(f"{frame} came instead")
        failed = [str(item) for item in conditions if not item.holds(frame.fields, self.names)]
        if failed:
            raise Failure(f"{frame} came: not {', '.join(failed)}")
        self._found(frame)

    def _matches(self, frame: Frame, conditions: list[Condition]) -> bool:
        return all(item.holds(frame.fields, self.names) for item in conditions)

    def _found(self, frame: Frame) -> None:
        self.names[frame.name.lower()] = frame.fields
        if frame.name in ("HELLO", "HELLO_ACK"):
            self.names["node"] = frame.fields.get("id")
        if frame.name == "ATTACH":
            other = self.names.get("hello_ack" if self.role == "acceptor" else "hello", {})
            generation = frame.fields.get("generation")
            if generation is not None and "incarnation" in other:
                self.tester.seen[other["incarnation"]] = generation
            if self.key is not None:
                self._verify(frame)
        if frame.name in ("HELLO", "HELLO_ACK"):
            self.line.heard += frame.raw

    def _verify(self, frame: Frame) -> None:
        """The implementation's mac; what was said after the HELLOs is not in the transcript."""
        line, me, node = self.line, self.tester.peer_id, self.names["node"]
        dialer = self.role == "dialer"
        if dialer:
            transcript, ids, first, role = line.heard + line.said, (node, me), b"", b"D"
        else:
            transcript, ids, first, role = line.said[: self._hello_end(line)] + line.heard, (me, node), line.mac, b"A"
        zeroed = frame.raw[:-32] + bytes(32)
        if codec.mac(self.key or b"", role, ids, transcript, zeroed, first) != frame.fields.get("mac"):
            raise Failure("the mac of the ATTACH is not the one of the specification")

    @staticmethod
    def _hello_end(line: Line) -> int:
        return 12 + int.from_bytes(line.said[8:12], "big")

    def _expect_close(self, words: list[str], limit: float) -> None:
        """``closed CODE [resumable=false]``: CLOSE, and nothing after it but the end of the stream."""
        code, *rest = words
        conditions = [condition(f"code={code}"), *map(condition, rest)]
        if not any(item.path == "resumable" for item in conditions):
            conditions.append(condition(f"resumable={'false' if code == 'ABORT' else 'true'}"))
        if not self.line.preamble:
            self._expect_preamble(limit)
        self._expect_frame("CLOSE", conditions, limit)
        self.line.kept.clear()
        self._expect_eof(limit)

    def _expect_eof(self, limit: float) -> None:
        line = self.line
        deadline = self.stage.now() + limit
        while (got := self._next(deadline)) is not None:
            if line.closed is not None and got is not line.closed:
                raise Failure(f"{got} came after CLOSE")
            if got.name == "CLOSE":
                raise Failure(f"{got} came, where the end of the stream was expected")
        if not line.ended:
            raise Failure(f"the stream did not end within {limit:g} s")

    def _expect_nothing(self, limit: float) -> None:
        deadline = self.stage.now() + limit
        if self.line.kept:
            raise Failure(f"{self.line.kept[0]} came, where nothing was expected")
        while (got := self._next(deadline)) is not None:
            if got.name not in _ANYWHERE:
                raise Failure(f"{got} came, where nothing was expected")
            self.line.ack = got if got.name == "ACK" else self.line.ack
        if self.line.ended:
            raise Failure("the stream ended")

    # -- bytes ----------------------------------------------------------------------------------------------------

    def _next(self, deadline: float) -> Frame | None:
        """The next frame of the connection; None at its end, or when time is up."""
        line = self.line
        if not line.preamble and not line.buffer and not self._read(deadline):
            return None
        while (frame := codec.parse(line.buffer)) is None:
            if not self._read(deadline):
                if line.ended and line.buffer:
                    raise Failure(f"the stream ended within a frame: {bytes(line.buffer[:40]).hex(' ')}")
                return None
        self.names["last"] = frame.fields
        for name, conditions in self.forbidden:
            if frame.name == name and self._matches(frame, conditions):
                raise Failure(f"{frame} came, which must never come")
        if line.closed is not None:
            raise Failure(f"{frame} came after CLOSE")
        if frame.name == "CLOSE":
            line.closed = frame
        return frame

    def _read(self, deadline: float) -> bool:
        """More bytes into the buffer; False if none come before the deadline."""
        line = self.line
        if line.ended:
            return False
        data = line.stream.read(max(0.0, deadline - self.stage.now()))
        if data is None:
            return False
        line.buffer += data
        line.ended = not data
        return bool(data)
