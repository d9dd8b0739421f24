"""The bare core as an implementation to be tested: one endpoint, a virtual clock, and an application by command.

Theory of operation
-------------------
:class:`BareStage` drives an :class:`~networkio_proto.endpoint.Endpoint` as every adapter does, but its streams are two
byte arrays, its disk is a list, and time passes only while a script waits.  ``A:`` lines are the application: the table
of them is in the documentation, each is one method here.  With ``echo`` it serves the echo application instead.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from networkio_proto import (
    Close,
    Config,
    Connection,
    DecodeError,
    Delivery,
    Dial,
    Endpoint,
    Limits,
    Log,
    MsgpackCodec,
    NetworkioError,
    Outcome,
    PeerEnded,
    PeerRestarted,
    Proof,
    Session,
    TLSFacts,
    Transmit,
)
from networkio_proto.inbox import message_id
from networkio_proto.journal import JournalBatch, JournalRecord, MessageAccepted
from networkio_proto.requests import REPLY, REQUEST, Request, request_of

from . import codec
from .play import Failure
from .script import Case
from .values import ScriptError, evaluate, split

__all__ = ["BareStage", "BareStream"]

#: timers that are due at one instant
_IDLE = 10_000


class KnownKey:
    """A pre-shared key, with the macs of the runner's own codec."""

    name = "psk"

    def __init__(self, key: bytes) -> None:
        self._key = key

    def key_id(self, peer_id: str | None) -> str | None:
        return None

    def sign(self, proof: Proof) -> bytes:
        ids = (proof.dialer_id, proof.acceptor_id)
        return codec.mac(self._key, proof.role, ids, proof.transcript, proof.attach, proof.dialer_mac, proof.binding)

    def verify(self, proof: Proof, mac: bytes | None, tls: TLSFacts | None) -> bool:
        return mac == self.sign(proof)


class BareStream:
    """The tester's end of a connection of the core."""

    def __init__(self, stage: BareStage, connection: Connection) -> None:
        self._stage, self.connection = stage, connection
        self.out = bytearray()
        #: the core is done with it
        self.closed = False
        #: the core has something to say, and waits for the stream to take it
        self.waits = False

    def write(self, data: bytes) -> None:
        """Bytes arrive at the core."""
        self.connection.receive_data(data, self._stage.time)
        self._stage.pump()

    def read(self, limit: float) -> bytes | None:
        """What the core sends next; time passes until there is something."""
        end = self._stage.time + limit
        while not self.out and not self.closed and (self._take() or self._stage.tick(end)):
            pass
        found = bytes(self.out)
        self.out.clear()
        return found if found or self.closed else None

    def shut(self) -> None:
        """The end of the tester's bytes."""
        self.connection.receive_eof(self._stage.time)
        self._stage.pump()

    def cut(self) -> None:
        """The stream breaks."""
        self.closed = True
        self.connection.connection_lost(self._stage.time, ConnectionResetError("cut"))
        self._stage.pump()

    def _take(self) -> bool:
        """A slow stream takes one frame, or a few small ones; False if there is none."""
        if self.waits:
            self.out += b"".join(self.connection.data_to_send(self._stage.time, 1))
            self.waits = bool(self.out)
        return self.waits

    def writable(self, *, flush: bool = False) -> None:
        """The stream takes all that the core has to say; a slow one only when it is read."""
        if self._stage.slow and not flush:
            self.waits = True
            return
        while buffers := self.connection.data_to_send(self._stage.time):
            self.out += b"".join(buffers)


class BareStage:
    """One endpoint for one case."""

    patience = 2.0

    def __init__(self, case: Case, *, echo: bool = False) -> None:
        self.case, self.time = case, 1000.0
        self._echo = MsgpackCodec() if echo else None
        self._lives = 0
        self._settings: dict[str, Any] = {}
        for word in split(case.node):
            key, _, value = word.partition("=")
            self._settings[key] = evaluate(value, {})
        self._records: list[JournalRecord] = []
        self._snapshot: list[JournalRecord] = []
        self._disk = "writes"
        #: what is being written by a disk that hangs
        self._hanging: JournalBatch | None = None
        self._request: Request | None = None
        #: how often a timer was due and time did not go on
        self._idle = 0
        #: streams take no byte before the script wants to read it
        self.slow = False
        self._boot()

    # -- the process ----------------------------------------------------------------------------------------------

    def _boot(self) -> None:
        """A process begins."""
        self._hanging = None
        settings = dict(self._settings)
        self._lives += 1
        limits = {key: settings.pop(key) for key in ("frame", "message") if key in settings}
        key = settings.pop("key", None)
        plain = ("codec", "journal", "durable_inbox")
        names: dict[str, Any] = {name: settings.pop(name) for name in plain if name in settings}
        names |= {name: tuple(settings.pop(name)) for name in ("features", "require") if name in settings}
        self._to = settings.pop("to", "me")
        config = Config(limits=Limits(**limits), **settings)
        source = random.Random(f"{self.case.name}/{self._lives}")
        self.endpoint = Endpoint(
            "m", config, auth=None if key is None else KnownKey(key), random=source, **names
        )
        self.streams: dict[Connection, BareStream] = {}
        self.dials: deque[Dial] = deque()
        self.held: dict[str, Delivery] = {}
        self.notices: list[str] = []
        self.logged: list[str] = []
        if self._records:
            self.endpoint.restore(self._records, self.time)
        if self.case.role == "dialer":
            self.endpoint.add_target("there", self.time, to=self._target())
        self.pump()

    def _target(self) -> str | None:
        return None if self._to is None else self.peer_id(self._to, self.case.arbiter)

    def _die(self) -> None:
        """It is gone, without a word."""
        for stream in self.streams.values():
            stream.closed = True

    # -- what a player needs --------------------------------------------------------------------------------------

    def open(self, role: str) -> BareStream:
        """A stream that somebody dialled; as dialer the core must want it within the time of a back-off."""
        if role == "acceptor":
            return self._stream(self.endpoint.accept(self.time))
        self._wait_for_dial(40.0)
        return self._stream(self.endpoint.connect(self.dials.popleft(), self.time))

    def _stream(self, connection: Connection) -> BareStream:
        stream = self.streams[connection] = BareStream(self, connection)
        self.pump()
        return stream

    def now(self) -> float:
        """The virtual clock."""
        return self.time

    def advance(self, seconds: float) -> None:
        """Time passes; what is due happens when it is due."""
        end = self.time + seconds
        while self.tick(end):
            pass

    def tick(self, end: float) -> bool:
        """Go on to the next timer, or to ``end``; False if that was it."""
        due = self.endpoint.get_timer()
        if due is None or due > end:
            self.time = end
            return False
        self._idle = 0 if due > self.time else self._idle + 1
        if self._idle > _IDLE:
            raise Failure("its timer is due again and again, and nothing comes of it")
        self.time = max(self.time, due)
        self.endpoint.handle_timer(self.time)
        self.pump()
        return True

    def peer_id(self, name: str, arbiter: bool) -> str:
        """``a...`` is less than the endpoint's ``m``, ``z...`` greater."""
        return ("z" if arbiter else "a") + ("" if name == "me" else f"-{name}")

    def pump(self) -> None:
        """Carry out every effect, write the disk, let the application echo."""
        while True:
            while (effect := self.endpoint.next_effect()) is not None:
                self._carry_out(effect)
            if not self._write_disk() and not self._echo_all():
                return

    def _carry_out(self, effect: Any) -> None:
        if isinstance(effect, Transmit):
            self.streams[effect.connection].writable()
        elif isinstance(effect, Close):
            stream = self.streams[effect.connection]
            if effect.flush:
                stream.writable(flush=True)
            stream.closed = True
        elif isinstance(effect, Dial):
            self.dials.append(effect)
        elif isinstance(effect, Log):
            self.logged.append(effect.text % effect.arguments)
        elif effect.session is None:
            while (event := self.endpoint.next_event()) is not None:
                self.notices.append(type(event).__name__)
                if isinstance(event, PeerRestarted) and event.positions is not None:
                    self.notices.append(f"{event.positions.received} {event.positions.read}")
                if self._echo is not None and isinstance(event, PeerEnded):
                    self.endpoint.session(event.peer).end(self.time)

    def _write_disk(self) -> bool:
        load = self.endpoint.journal_load() if self._disk else None
        if load is not None:
            messages = [record for record in self._records if isinstance(record, MessageAccepted)]
            wanted = [each for each in messages if each.peer_id == load.peer_id]
            found = [each for each in wanted if load.first <= each.sequence <= load.last]
            self.endpoint.journal_loaded(load.token, found, self.time)
            return True
        batch = None if self._disk == "fails" else self._hanging or self.endpoint.journal_request()
        self._hanging = batch if self._disk == "hangs" else None
        if batch is None or self._hanging:
            return False
        self._records += batch.records
        self.endpoint.journal_done(batch.token, self.time)
        return True

    def _echo_all(self) -> bool:
        """The echo application; True if it did something."""
        if self._echo is None:
            return False
        done = False
        for session in list(self.endpoint.sessions.values()):
            for delivery in session.take(1 << 20):
                self._echo_one(session, delivery, self._echo)
                done = True
        return done

    def _echo_one(self, session: Session, delivery: Delivery, payloads: MsgpackCodec) -> None:
        _, _, payload, flags, details = delivery
        raw, headers = bool(flags & codec.FLAGS["RAW"]), details.headers if details else None
        try:
            value = payload if raw else payloads.decode(payload)
        except DecodeError:
            session.settle(delivery, self.time, reject=(1, "it cannot be decoded"))
            return
        if value == "reject":
            session.settle(delivery, self.time, reject=(7, "as you wish"))
            return
        number = request_of(headers)
        session.send(
            payload if raw else payloads.encode(value), self.time, raw=raw,
            headers=details.users_headers if details else None,
            reserved=None if number is None else {REPLY: number},
        )  # fmt: skip
        session.settle(delivery, self.time)

    # -- the application ------------------------------------------------------------------------------------------

    def command(self, words: list[str], value: Callable[[str], Any], peer_id: str) -> dict[str, Any]:
        """One ``A:`` line."""
        name, *rest = words
        options = {}
        for word in list(rest):
            key, equals, text = word.partition("=")
            if equals and key.isidentifier():
                options[key] = text if key == "as" else value(text)
                rest.remove(word)
        action = getattr(self, "_do_" + name.replace("-", "_"), None)
        if action is None:
            raise ScriptError(f"the application cannot {name}")
        refused = options.pop("refused", None)
        try:
            found = action(self.endpoint.session(peer_id, self.time), rest, value, options)
        except NetworkioError as error:
            if type(error).__name__ != refused:
                raise Failure(f"{type(error).__name__}: {error}") from error
            return {}
        if refused is not None:
            raise Failure(f"it was not refused with {refused}")
        self.pump()
        return found if isinstance(found, dict) else {}

    def _do_send(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> dict[str, Any]:
        count, raw, last = options.pop("times", 1), "raw" in options, 0
        payload = options.pop("raw") if raw else codec.pack_value(value(rest[0]))
        for _ in range(count):
            last = session.send(payload, self.time, raw=raw, **options)
        return {"bound_sent": last}

    def _do_read(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        taken = session.take_settled(1, self.time)
        self._compare(taken, rest, value, options)

    def _do_receive(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        name = options.pop("as", "message")
        taken = session.take(1)
        self._compare(taken, rest, value, options)
        self.held[name] = taken[0]

    def _compare(self, taken: list[Delivery], rest: list[str], value: Any, options: dict[str, Any]) -> None:
        if not taken:
            raise Failure("there is no message to read")
        inbox, sequence, payload, _, details = taken[0]
        found: dict[str, Any] = {
            "sequence": sequence, "redelivered": details is not None and details.redelivered, "raw": payload,
            "headers": details.headers if details else None, "id": message_id(taken[0]), "size": len(payload),
            "gap": [[gap.first, gap.last, gap.reason] for gap in details.gap] if details else [],
            "outbox": inbox.outbox_id, "attempt": 1 if details is None else details.attempt,
            "restarted": details is not None and details.peer_restarted is not None,
        }  # fmt: skip
        if rest:
            options = {**options, "raw": codec.pack_value(value(rest[0]))}
        wrong = [f"{key} is {found[key]!r}" for key in options if found[key] != options[key]]
        if wrong:
            raise Failure("; ".join(wrong))

    def _do_nothing(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        if session.unread:
            raise Failure(f"there are {session.unread} messages to be read")

    def _do_unsettled(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        if session.unsettled != value(rest[0]):
            raise Failure(f"a cost of {session.unsettled} is not settled")

    def _do_acknowledge(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        session.settle(self.held.pop(rest[0] if rest else "message"), self.time)

    def _do_reject(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        reason = (options.get("code", 0), options.get("text", ""))
        session.settle(self.held.pop(rest[0] if rest else "message"), self.time, reject=reason)

    def _do_release(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        session.release(self.held.pop(rest[0] if rest else "message"), self.time)

    def _do_outcome(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        found, wanted = session.outcome(value(rest[0])), None if rest[1] == "nil" else Outcome[rest[1]]
        if found is not wanted:
            raise Failure(f"the outcome of {rest[0]} is {found}")
        failure = session.failure(value(rest[0]))
        for key, wish in options.items():
            if failure is None or getattr(failure, key) != wish:
                raise Failure(f"the record of it is {failure}")

    def _do_cancel(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        done = session.cancel(value(rest[0]), self.time)
        if done is not value(rest[1]):
            raise Failure(f"cancel says {done}")

    def _do_end(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        session.end(self.time)

    def _do_abort(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        session.abort(self.time)

    def _do_disconnect(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        session.disconnect(self.time)

    def _do_leave(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        self.endpoint.close(self.time)

    def _do_dial(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        to = options.get("to", self._target())
        self.endpoint.add_target(f"there {self.time} {rest}", self.time, to=to)

    def _do_request(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> dict[str, Any]:
        self._request = session.requests.open(self.endpoint.random_bytes(16))
        session.send(codec.pack_value(value(rest[0])), self.time, reserved={REQUEST: self._request.number})
        return {"bound_number": self._request.number}

    def _do_give_up(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        if self._request is not None:
            session.requests.close(self._request)

    def _do_replied(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        reply = self._request and self._request.delivery
        if not reply or reply[2] != codec.pack_value(value(rest[0])):
            raise Failure(f"the reply is {reply and reply[2]!r}")
        session.settle(reply, self.time)

    def _do_reply(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        held = self.held[rest[0]]
        number = request_of(held[4].headers if held[4] else None)
        if number is None:
            raise Failure("it is not a request")
        session.send(codec.pack_value(value(rest[1])), self.time, reserved={REPLY: number})

    def _do_notice(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        if rest[0] not in self.notices:
            raise Failure(f"the notices were {', '.join(self.notices)}")

    def _do_logged(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        wanted = value(rest[0])
        if not any(wanted in line for line in self.logged):
            raise Failure(f"logged was {self.logged}")
        if not all(line.isprintable() for line in self.logged):
            raise Failure(f"what was logged is not printable: {self.logged}")

    def _do_error(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        """Why there is no connection, as the application can show it."""
        text = str(session.error)
        if value(rest[0]) not in text or not text.isprintable():
            raise Failure(f"the error is {text!r}")

    def _do_unchanged(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        """The positions are these: next, first, received of the own outbox; received and read of the inbox."""
        outbox, inbox = session.outbox, session.inbox
        found = [outbox.next, outbox.first, outbox.received] + ([inbox.received, inbox.read] if inbox else [0, 0])
        if found != value(rest[0]):
            raise Failure(f"they are {found}")

    def _do_slow(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        self.slow = True

    # -- the process and its disk ---------------------------------------------------------------------------------

    def _do_crash(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        """The process dies, and another begins; without a journal it knows nothing."""
        self._die()
        self._boot()

    def _do_snapshot(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        self._snapshot = list(self._records)

    def _do_roll_back(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        """The process dies, and another begins with an old copy of the journal."""
        self._records = list(self._snapshot)
        self._die()
        self._boot()

    def _do_disk(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        self._disk = rest[0]

    # -- dialling -------------------------------------------------------------------------------------------------

    def _wait_for_dial(self, limit: float) -> None:
        end = self.time + limit
        while not self.dials and self.tick(end):
            pass
        if not self.dials:
            raise Failure(f"it does not dial within {limit:g} s")

    def _do_expect_dial(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        self._wait_for_dial(float(rest[0]))

    def _do_expect_no(self, session: Session, rest: list[str], value: Any, options: dict[str, Any]) -> None:
        """``no dial``."""
        self.advance(float(rest[0]))
        if self.dials:
            raise Failure("it dials")
