"""One TLS channel, without its stream: ciphertext on the one side, a core connection on the other.

Theory of operation
-------------------
A link of any driver moves bytes between its stream and a connection, by two calls.  A :class:`Channel` has the same
calls and stands between the two, so no driver knows of TLS.  It does not wait: the handshake goes on with what comes,
and what it has to say goes out when the link asks for what is to be sent.  The time for all of it is the core's
(P-HS-7, P-AUTH-6): the connection is there from the beginning, and so is its deadline.

Until the channel stands the core is asked for nothing and told nothing.  Then the connection is told what the
certificates say (:class:`~networkio_proto.auth.TLSFacts`), which the proof of identity rests on.  A channel that cannot
be trusted fails its connection, after the alert that tells the other side why.  A stream that ends without TLS's own
end is a loss like any other, and so is a record that was tampered with: the session resumes.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from networkio_proto.auth import TLSFacts
from networkio_proto.errors import CloseCode, printable

if TYPE_CHECKING:
    from networkio_proto import Connection
    from networkio_proto.links import LinkHandle

__all__ = ["Channel"]

logger = logging.getLogger("networkio.tls")

#: so many bytes are decrypted at a time
_CHUNK = 65536

#: so many bytes of ciphertext are handed to OpenSSL at a time
_PIECE = 8192

#: so much may wait to be sent that TLS itself says: a handshake, and answers to whoever wants new keys again and again
_ANSWERS = 65536

#: before the peer has proved who it is, it gets so many bytes through: long chains of certificates fit
_UNPROVED = 65_536

#: what a stream's end means before that of TLS, and before its beginning
_CUT = "it was cut off: the stream ended without the end of TLS (close_notify)"
_UNANSWERED = "the stream ended in the middle of the TLS handshake; does the peer speak TLS?"

#: the alerts protocol_version and close_notify: whoever speaks something else can tell by them that this is TLS
_ALERT = bytes.fromhex("15030300020246 15030300020100")

#: words of OpenSSL for a peer that does not speak TLS at all
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE", "PACKET_LENGTH")


class Channel:
    """Carries one connection over TLS.  ``link`` is set by whoever made it, before the first call."""

    link: LinkHandle

    def __init__(
        self,
        connection: Connection,
        context: ssl.SSLContext,
        *,
        certificate: bytes,
        hostname: str | None,
        identity: Callable[[Any], str | None],
    ) -> None:
        self.connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._context = context
        self._hostname = hostname
        #: made when there is something to say or to hear: a silent stranger costs next to nothing
        self._made: ssl.SSLObject | None = None
        #: our own, DER; empty if it is not known
        self._certificate = certificate
        self._identity = identity
        self._verifies = context.verify_mode is ssl.CERT_REQUIRED
        #: the handshake is over
        self._open = False
        #: no record follows: the peer has said so, or there was an error
        self._over = False
        self._said_goodbye = False
        #: bytes that came before the connection was live
        self._unproved = 0

    def __repr__(self) -> str:
        return f"<Channel {self._object.version() if self._open else 'opening'} of {self.connection!r}>"

    # -- as the connection --------------------------------------------------------------------------------------

    @property
    def prompt(self) -> bool:
        """As :attr:`Connection.prompt <networkio_proto.Connection.prompt>`."""
        return self.connection.prompt

    @property
    def backlog(self) -> Callable[[], int] | None:
        """As that of the connection, which has it."""
        return self.connection.backlog

    @backlog.setter
    def backlog(self, backlog: Callable[[], int] | None) -> None:
        self.connection.backlog = backlog

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Ciphertext came.  Never raises because of what it is."""
        if self._over:
            return
        try:
            view = memoryview(data)
            while view and not self._over:  # in pieces: what is answered is looked at in between
                piece, view = view[:_PIECE], view[_PIECE:]
                if not self.connection.live:  # a proof may be followed by messages in the same chunk
                    self._unproved += len(piece)
                    if self._unproved > _UNPROVED:
                        raise ssl.SSLError(1, "so many bytes before anything is proved")
                self._incoming.write(piece)
                if self._open or self._shake():
                    self._read(now)
                if self._outgoing.pending > _ANSWERS:
                    raise ssl.SSLError(1, "more TLS answers were asked for than are read")
        except (ssl.SSLError, ValueError, OSError) as error:
            self._fail(error, now)
        if self._outgoing.pending:
            self.link.transmit()

    def data_to_send(self, now: float, max_bytes: int = 65536) -> list[bytes | memoryview]:
        """The next ciphertext for the stream; an empty list when there is none."""
        try:
            if not self._open:
                if self.connection.dialer and not self._over:
                    self._shake()  # the dialer speaks first
            elif not self._over:
                buffers = self.connection.data_to_send(now, max_bytes)
                if buffers:
                    self._write(b"".join(buffers))
                elif self.link.closing:
                    self._say_goodbye()
        except (ssl.SSLError, ValueError, OSError) as error:
            self._fail(error, now)
        return [self._outgoing.read()] if self._outgoing.pending else []

    def connection_lost(self, now: float, exc: BaseException | None = None) -> None:
        """The stream broke, or ended."""
        if exc is None and not self._over:
            exc = EOFError(_CUT if self._open else _UNANSWERED)
        self._over = True
        self.connection.connection_lost(now, exc)

    # -- TLS ----------------------------------------------------------------------------------------------------

    @property
    def _object(self) -> ssl.SSLObject:
        if self._made is None:
            self._made = self._context.wrap_bio(
                self._incoming, self._outgoing,
                server_side=not self.connection.dialer, server_hostname=self._hostname,
            )  # fmt: skip
        return self._made

    def _shake(self) -> bool:
        """Go on with the handshake; is it done?"""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self._open = True
        self.connection.tls = self._facts()
        self.link.transmit()  # what the core had to say waited for this
        return True

    def _facts(self) -> TLSFacts:
        """What the certificates say: the acceptor's is the binding, the peer's its name."""
        theirs = self._object.getpeercert(binary_form=True) or b""
        acceptors = theirs if self.connection.dialer else self._certificate
        binding = hashlib.sha256(acceptors).digest() if acceptors else b""
        return TLSFacts(binding, self._named() if self._verifies else None)

    def _named(self) -> str | None:
        """Whom the peer's certificate names; nobody, if that cannot be told."""
        try:
            return self._identity(self._object.getpeercert())
        except Exception as error:  # of a name that is no text, or of the application's own function
            logger.warning("whom a certificate names cannot be told: %s", type(error).__name__)
            return None

    def _read(self, now: float) -> None:
        while True:
            try:
                data = self._object.read(_CHUNK)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                self._over = True
                self.connection.connection_lost(now, None)
                return
            self.connection.receive_data(data, now)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._object.write(view) :]

    def _say_goodbye(self) -> None:
        """The end of TLS, after which the stream may end."""
        if not self._said_goodbye:
            self._said_goodbye = True
            try:
                self._object.unwrap()
            except ssl.SSLError:  # the peer has not said it yet, and need not
                pass

    def _fail(self, error: Exception, now: float) -> None:
        """The channel cannot be trusted, or no longer."""
        self._over = True
        if self.connection.live:  # tampered with on the way: the session resumes on another
            self.connection.connection_lost(now, error)
        else:
            code, text = _judged(error)
            if code is CloseCode.PROTOCOL and not self._outgoing.pending:
                self._outgoing.write(_ALERT)
            self.connection.distrust(code, text, now)


def _judged(error: Exception) -> tuple[CloseCode, str]:
    """What an error before the proof of identity means, in one line."""
    reason = getattr(error, "reason", None) or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return CloseCode.AUTH_FAILED, f"the peer's certificate is refused: {printable(error.verify_message)}"
    if "ALERT" in reason:
        words = reason.lower().rpartition("alert_")[2].replace("_", " ")
        return CloseCode.AUTH_FAILED, f"the peer ended the TLS handshake: {printable(words)}"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return CloseCode.AUTH_FAILED, "the peer has no certificate"
    if reason in _NOT_TLS:
        return CloseCode.PROTOCOL, "the peer does not speak TLS, and this side does"
    return CloseCode.AUTH_FAILED, f"TLS failed: {printable(reason or str(error))}"
