"""One exception tree for everything that can go wrong, local or remote.

Theory of operation
-------------------
Four families hang under :class:`NetworkioError`, because they call for four different reactions:

* :class:`UsageError` - the program asked for something that cannot be done *now* or *so* (a full outbox, a closed
  node, an object that cannot be encoded).  It is raised at the call, and the call changed nothing.
* :class:`ConnectionFailure` - a connection ended or could not be made.  Each carries the close code of the
  specification (``docs/protocol.md``, *Close codes*).  It is never raised out of the core because of what a peer
  sent: it is found in ``Connection.error`` and in notices, and reconnecting goes on by itself where the code allows.
* :class:`DeliveryFailure` - the final outcome of one message other than READ.  It is raised by whoever waits for a
  receipt, and listed by ``failures()``.
* :class:`JournalError` - the journal cannot be opened, or cannot take what it was given.  The disk, or whoever looks
  after it, has to be asked; the core raises none of them by itself.

Text that came from the other side is escaped and cut by :func:`printable` before it enters a message.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any

__all__ = [
    "AbortedByPeer",
    "AbuseError",
    "AddressError",
    "AuthenticationFailed",
    "CloseCode",
    "CodecMismatch",
    "CollisionClosed",
    "ConfigurationError",
    "ConnectionFailure",
    "ConnectionLost",
    "DecodeError",
    "DeliveryFailure",
    "DialFailed",
    "DuplicateIdentity",
    "EncodeError",
    "FlowControlError",
    "ForkedProcess",
    "HandshakeTimeout",
    "IteratorBusy",
    "JournalDamaged",
    "JournalError",
    "JournalFailed",
    "JournalFull",
    "JournalLocked",
    "JournalMismatch",
    "MessageAbandoned",
    "MessageCancelled",
    "MessageExpired",
    "MessageLost",
    "MessageNotHeld",
    "MessageRejected",
    "MessageTooLarge",
    "NetworkioError",
    "NoMessage",
    "NoMoreMessages",
    "NodeClosed",
    "NormalClose",
    "NotARequest",
    "Outcome",
    "OutboxFull",
    "OutcomeForgotten",
    "Overloaded",
    "PeerRestarting",
    "ProtocolError",
    "RemoteTooLarge",
    "RetryRequested",
    "SelfConnection",
    "SessionClosed",
    "Superseded",
    "UsageError",
    "VersionMismatch",
    "WrongPeer",
    "WrongThread",
    "failure_for",
    "printable",
]


def printable(text: object, limit: int = 120) -> str:
    """Make peer-controlled text safe for a log line or a terminal.

    Everything outside printable ASCII is escaped (no CR/LF, ANSI or bidirectional tricks), and at most ``limit``
    characters remain.
    """
    raw = text if isinstance(text, str) else str(text)
    if len(raw) <= limit and raw.isascii() and raw.isprintable():  # so it is nearly always
        return raw
    safe = "".join(c if " " <= c <= "~" else c.encode("unicode_escape", "replace").decode() for c in raw[:limit])
    return safe if len(raw) <= limit and len(safe) <= limit else safe[:limit] + "..."


class CloseCode(IntEnum):
    """Why a connection was closed, as it stands in a CLOSE frame (specification, *Close codes*)."""

    NORMAL = 0
    RESTARTING = 1
    OVERLOAD = 2
    COLLISION = 3
    SUPERSEDED = 4
    DUPLICATE_IDENTITY = 5
    AUTH_FAILED = 6
    VERSION = 7
    PROTOCOL = 8
    FLOW = 9
    TOO_LARGE = 10
    TIMEOUT = 11
    ABORT = 12
    ABUSE = 13
    SELF = 14
    RETRY = 15
    WRONG_PEER = 16
    CODEC = 17


class Outcome(Enum):
    """The one end of an accepted message (promise G3)."""

    READ = "read"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    LOST = "lost"
    ABANDONED = "abandoned"


class NetworkioError(Exception):
    """The root of every exception that networkio raises on purpose."""


# -- usage: raised at the call, nothing was changed ------------------------------------------------------------------


class UsageError(NetworkioError):
    """The call cannot be carried out; nothing was changed by it."""


class ConfigurationError(UsageError, ValueError):
    """A setting, peer id or address is not usable; the message names it and the accepted values."""


class NodeClosed(UsageError):
    """The node was closed; nothing can be sent, received or dialled with it any more."""


class SessionClosed(UsageError):
    """This side ended (or is draining) the session; it takes no new messages."""


class NoMoreMessages(UsageError):
    """The peer ended its outbox and everything in it was handed over: no further message will come."""


class OutboxFull(UsageError):
    """The bound of the outbox is reached.  Wait for room, cancel messages, or raise the bound."""


class MessageTooLarge(UsageError, ValueError):
    """The message is over ``limits.message`` of this side or of the peer."""


class NoMessage(UsageError):
    """Nothing is there to be read now, and the caller asked not to wait."""


class MessageNotHeld(UsageError):
    """The message is not held by the application (any more): it was settled or released before."""


class NotARequest(UsageError):
    """A reply to a message that is no request: its sender does not wait for one."""


class IteratorBusy(UsageError):
    """A second iterator over one peer's messages was started while the first is in use."""


class WrongThread(UsageError, RuntimeError):
    """A call from a thread that must not make it.

    With networkio_asyncio any but the event loop's; with networkio_threads only the node's own thread, when it runs
    what ``on_notice`` was given and that wants to wait.
    """


class ForkedProcess(UsageError, RuntimeError):
    """The process was forked after the node had started: the node belongs to the parent.  Make one in the child."""


class AddressError(UsageError, OSError):
    """An address cannot be listened on: in use, not permitted, not resolvable."""


class EncodeError(UsageError, ValueError):
    """An object cannot be carried by the codec.

    ``path`` leads to the offending element, for example ``$['users'][3].created``.
    """

    def __init__(self, message: str, path: str = "$") -> None:
        super().__init__(message, path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.args[0]} (at {self.path})"


class DecodeError(UsageError, ValueError):
    """A payload cannot be decoded.  The message is still there: read it raw, reject it or acknowledge it."""

    #: the message, held by whoever caught this, where an adapter's ``read`` raised it
    message: Any = None


# -- connections: found in Connection.error and in notices -----------------------------------------------------------


class ConnectionFailure(NetworkioError):
    """A connection ended, or could not be made.

    ``remote`` tells whether the other side said so; ``retry_after`` (seconds) is how long it asked to stay away;
    ``resumable`` whether the session goes on; ``unproven`` whether it came of what somebody said who had to prove to be
    the peer, and had not.
    """

    code: CloseCode = CloseCode.PROTOCOL
    explanation = "the connection failed"

    def __init__(
        self, detail: str = "", *, remote: bool = False, retry_after: float = 0.0, resumable: bool = True
    ) -> None:
        self.detail = detail
        self.remote = remote
        self.retry_after = retry_after
        self.resumable = resumable
        self.unproven = False
        super().__init__(detail)

    def __str__(self) -> str:
        who = "the peer closed the connection: " if self.remote else ""
        detail = f": {self.detail}" if self.detail else ""
        return f"{who}{self.explanation}{detail}"


class ConnectionLost(ConnectionFailure):
    """The byte stream ended without a CLOSE: a cut cable, a killed process, a reset."""

    code = CloseCode.TIMEOUT
    explanation = "the connection was lost"


class DialFailed(ConnectionFailure):
    """No byte stream to the address could be made (refused, unreachable, not resolvable, timed out)."""

    code = CloseCode.TIMEOUT
    explanation = "dialling failed"


class NormalClose(ConnectionFailure):
    code = CloseCode.NORMAL
    explanation = "closed normally"


class PeerRestarting(ConnectionFailure):
    code = CloseCode.RESTARTING
    explanation = "the node is restarting"


class Overloaded(ConnectionFailure):
    code = CloseCode.OVERLOAD
    explanation = "the node is overloaded; it will be tried again later"


class CollisionClosed(ConnectionFailure):
    code = CloseCode.COLLISION
    explanation = "another connection of the same session was chosen"


class Superseded(ConnectionFailure):
    code = CloseCode.SUPERSEDED
    explanation = "a newer connection took over the session"


class DuplicateIdentity(ConnectionFailure):
    code = CloseCode.DUPLICATE_IDENTITY
    explanation = "another live process uses the same peer id; give each process an id of its own"


class AuthenticationFailed(ConnectionFailure):
    code = CloseCode.AUTH_FAILED
    explanation = "authentication failed; compare the keys and the auth setting of both sides"


class VersionMismatch(ConnectionFailure):
    code = CloseCode.VERSION
    explanation = "the two sides share no protocol version or a required feature is missing"


class ProtocolError(ConnectionFailure):
    code = CloseCode.PROTOCOL
    explanation = "protocol violation"


class FlowControlError(ConnectionFailure):
    code = CloseCode.FLOW
    explanation = "more was sent than the credit allows"


class RemoteTooLarge(ConnectionFailure):
    code = CloseCode.TOO_LARGE
    explanation = "a frame or message was over the announced limit"


class HandshakeTimeout(ConnectionFailure):
    code = CloseCode.TIMEOUT
    explanation = "the other side was silent for too long"


class AbortedByPeer(ConnectionFailure):
    code = CloseCode.ABORT
    explanation = "the session was aborted"


class AbuseError(ConnectionFailure):
    code = CloseCode.ABUSE
    explanation = "too many control frames"


class SelfConnection(ConnectionFailure):
    code = CloseCode.SELF
    explanation = "a node connected to itself; check the address"


class RetryRequested(ConnectionFailure):
    code = CloseCode.RETRY
    explanation = "the connection is made anew at once"


class WrongPeer(ConnectionFailure):
    code = CloseCode.WRONG_PEER
    explanation = "another peer answered than the one that was meant; check the address and the peer id"


class CodecMismatch(ConnectionFailure):
    code = CloseCode.CODEC
    explanation = "the two sides use different payload codecs"


_BY_CODE: dict[int, type[ConnectionFailure]] = {
    cls.code: cls
    for cls in (
        NormalClose,
        PeerRestarting,
        Overloaded,
        CollisionClosed,
        Superseded,
        DuplicateIdentity,
        AuthenticationFailed,
        VersionMismatch,
        ProtocolError,
        FlowControlError,
        RemoteTooLarge,
        HandshakeTimeout,
        AbortedByPeer,
        AbuseError,
        SelfConnection,
        RetryRequested,
        WrongPeer,
        CodecMismatch,
    )
}


def failure_for(
    code: int, detail: str = "", *, remote: bool = False, retry_after: float = 0.0, resumable: bool = True
) -> ConnectionFailure:
    """The exception that stands for a close code; an unlisted code is a :class:`ProtocolError` that names it."""
    cls = _BY_CODE.get(code)
    if cls is None:
        cls, detail = ProtocolError, f"close code {code} {detail}".rstrip()
    return cls(detail, remote=remote, retry_after=retry_after, resumable=resumable)


# -- delivery: how a message ended when it was not read --------------------------------------------------------------


class DeliveryFailure(NetworkioError):
    """A message ended otherwise than READ.

    ``seen`` is ``"no"`` when the peer's application certainly never saw it, ``"yes"`` when it rejected it, else
    ``"unknown"``.
    """

    outcome: Outcome = Outcome.LOST

    def __init__(self, sequence: int, reason: str = "", *, seen: str = "unknown", code: int = 0) -> None:
        self.sequence = sequence
        self.reason = reason
        self.seen = seen
        self.code = code
        super().__init__(sequence, reason)

    def __str__(self) -> str:
        reason = f": {printable(self.reason, 512)}" if self.reason else ""
        return f"message {self.sequence} was {self.outcome.value}{reason} (seen by the peer: {self.seen})"


class MessageRejected(DeliveryFailure):
    """The peer's application rejected the message; ``code`` and ``reason`` are its words."""

    outcome = Outcome.REJECTED


class MessageExpired(DeliveryFailure):
    """The message's ttl, or the session, expired before it was read."""

    outcome = Outcome.EXPIRED


class MessageCancelled(DeliveryFailure):
    """The message was cancelled by its sender in time."""

    outcome = Outcome.CANCELLED


class MessageLost(DeliveryFailure):
    """The message was given up: dropped for newer ones, over the peer's limit, or its peer restarted ("report")."""

    outcome = Outcome.LOST


class OutcomeForgotten(DeliveryFailure):
    """The message ended long ago, and among more than 1,024 separate failures it is not recorded how; maybe READ."""


class MessageAbandoned(DeliveryFailure):
    """The session was aborted before the message was read."""

    outcome = Outcome.ABANDONED


# -- the journal: what stands between a node and its disk ------------------------------------------------------------


class JournalError(NetworkioError):
    """The journal cannot be opened, or could not take what it was given."""

    def anew(self, sequence: int, peer_id: str) -> JournalError:
        """The same, for whoever asks about a message that could not be written."""
        again = type(self)(f"message {sequence} to {peer_id} was not accepted: {self}")
        again.__cause__ = self
        return again


class JournalLocked(JournalError):
    """Another process, or another node of this one, uses the journal; the message names it."""


class JournalMismatch(JournalError):
    """The file is no journal, the journal of another node, or one that a newer version of networkio wrote."""


class JournalDamaged(JournalError):
    """What stands in the journal is not what was written; the message says where.  The file was left as it is."""


class JournalFull(JournalError):
    """There was no room: on the disk, or below the journal's limit.  Nothing was written; later there may be room."""


class JournalFailed(JournalError):
    """Writing or syncing failed, and nobody knows what is on the disk.  This process writes no more to the journal."""
