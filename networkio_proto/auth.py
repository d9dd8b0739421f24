"""The seam where a peer proves who it is.

Theory of operation
-------------------
The handshake asks an :class:`Authenticator` three things: which ``auth`` name and key id to announce, the mac of the
ATTACH that it is about to send, and whether the mac of the ATTACH that it received is good.  Everything that a mac
must cover is in the :class:`Proof` that it is handed: both ids, the raw bytes of everything said before ATTACH, the
binding to the TLS channel, and the raw ATTACH frame with the place of the mac zeroed.  The method is chosen by this
side's configuration and never by what the peer says.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Protocol

from .errors import CloseCode, ConfigurationError, printable

__all__ = [
    "MAC_SIZE",
    "MTLS",
    "Authenticator",
    "Identity",
    "Insecure",
    "Proof",
    "Refusal",
    "TLSFacts",
    "check_exposure",
    "is_loopback",
]

MAC_SIZE = 32

#: seconds; who is refused for longer is refused for good
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class TLSFacts:
    """What the driver knows of the TLS channel under a connection."""

    #: SHA-256 of the acceptor's certificate (DER), for ``tls-server-end-point``
    binding: bytes = b""
    #: the peer id that a verified certificate names, or None
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """What one mac covers.  ``role`` is ``b"D"`` for the dialer's ATTACH, ``b"A"`` for the acceptor's."""

    role: bytes
    dialer_id: str
    acceptor_id: str
    key_id: str | None
    transcript: bytes
    binding: bytes
    #: the dialer's mac, in the acceptor's proof
    dialer_mac: bytes
    #: the raw ATTACH frame, its mac zeroed
    attach: bytes


class Authenticator(Protocol):
    """A way to prove identities.  Implementations compare in constant time and never raise because of a peer.

    What ``verify`` raises (a lookup of the application's that fails) is told in the log, and refuses the peer.
    """

    @property
    def name(self) -> str:
        """The ``auth`` of HELLO: ``insecure``, ``psk``, ``mtls`` or ``mtls+psk``."""
        ...

    def key_id(self, peer_id: str | None) -> str | None:
        """The key to announce when dialling ``peer_id``; raises ConfigurationError where nobody can be dialled so."""
        ...

    def sign(self, proof: Proof) -> bytes | None:
        """The mac of our ATTACH: 32 bytes, or None where the method has none."""
        ...

    def verify(self, proof: Proof, mac: bytes | None, tls: TLSFacts | None) -> bool:
        """Is the peer who it says it is?"""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Who has just proved to be there; what ``authorize`` of a node is asked about."""

    peer_id: str
    #: where it comes from (an address without its port), or which address was dialled
    source: str
    #: did this side dial it?
    dialled: bool
    #: by which key, if keys prove identities and have ids
    key_id: str | None
    #: whom its certificate names, if certificates prove identities
    certificate: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What ``authorize`` returns of somebody who is not wanted.

    ``code`` is told to it, and decides how it tries again: AUTH_FAILED slowly, OVERLOAD after ``retry_after`` seconds.
    ``reason`` stays here.  Raises ConfigurationError for another code, and a time that is not from 0 s to a day.
    """

    code: CloseCode = CloseCode.AUTH_FAILED
    reason: str = ""
    retry_after: float = 0.0

    def __post_init__(self) -> None:
        if self.code not in (CloseCode.AUTH_FAILED, CloseCode.OVERLOAD):
            raise ConfigurationError(f"the code of a refusal is {self.code!r}; it must be AUTH_FAILED or OVERLOAD")
        if not 0 <= self.retry_after <= _DAY:
            raise ConfigurationError(f"retry_after is {self.retry_after!r}; it must be from 0 to {_DAY} seconds")


class Insecure:
    """No proof at all: whoever names an id is believed.  For loopback, and for networks where everyone is trusted."""

    name = "insecure"

    def key_id(self, peer_id: str | None) -> str | None:
        return None

    def sign(self, proof: Proof) -> bytes | None:
        return None

    def verify(self, proof: Proof, mac: bytes | None, tls: TLSFacts | None) -> bool:
        return mac is None


class MTLS:
    """Certificates of both sides prove who they are (P-AUTH-5); with ``psk``, a pre-shared key as well (``mtls+psk``).

    The driver has verified the peer's certificate when it tells whom it names (:class:`TLSFacts`).
    """

    def __init__(self, psk: Authenticator | None = None) -> None:
        self._psk = psk
        self.name = "mtls" if psk is None else "mtls+psk"

    def __repr__(self) -> str:
        return "MTLS()" if self._psk is None else f"MTLS({self._psk!r})"

    def key_id(self, peer_id: str | None) -> str | None:
        return None if self._psk is None else self._psk.key_id(peer_id)

    def sign(self, proof: Proof) -> bytes | None:
        return None if self._psk is None else self._psk.sign(proof)

    def verify(self, proof: Proof, mac: bytes | None, tls: TLSFacts | None) -> bool:
        peer_id = proof.dialer_id if proof.role == b"D" else proof.acceptor_id
        named = tls is not None and tls.identity == peer_id
        proved = mac is None if self._psk is None else self._psk.verify(proof, mac, tls)
        return named and proved


def is_loopback(host: str) -> bool:
    """Does the host name or address certainly stay on this machine?"""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, auth: Authenticator | None) -> None:
    """Refuse to meet strangers unprotected, unless somebody spelled it out; raises ConfigurationError."""
    if auth is None and not is_loopback(host):
        raise ConfigurationError(
            f"{printable(host)} is not loopback: whoever reaches it could claim any peer id. There are three ways: "
            "pre-shared keys (auth=PSK(...)), TLS with certificates of both sides (tls=TLS(...)), or, where everybody "
            'on the network is trusted, auth="insecure"'
        )
