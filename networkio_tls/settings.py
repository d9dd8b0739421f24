"""``TLS``: the certificates of one node, and the right way to use them.

Theory of operation
-------------------
A node plays both roles, so there is a context for each: it shows its certificate when it accepts and when it dials, and
with an ``authority`` it takes nobody whose certificate that authority has not signed.  Whom a certificate names is in
its URI subject alternative name, ``networkio:`` and the peer id (P-AUTH-5).  Host names play no part: a peer is who it
is, wherever it runs.

Files are read again when they have changed, at the next connection; connections that stand are left alone.  There is no
resumption of TLS sessions: every connection verifies the certificates anew, and so their dates.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import ssl
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from networkio_proto.config import check_peer_id
from networkio_proto.errors import ConfigurationError, printable

from .channel import Channel

if TYPE_CHECKING:
    from networkio_proto import Connection

__all__ = ["TLS", "identity_of"]

logger = logging.getLogger("networkio.tls")

_PREFIX = "networkio:"

StrPath: TypeAlias = "str | os.PathLike[str]"
_Contexts: TypeAlias = tuple[ssl.SSLContext, ssl.SSLContext, bytes]
Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


def identity_of(certificate: Any) -> str | None:
    """The peer id that a verified certificate (as of ``SSLObject.getpeercert``) names; None if not exactly one."""
    names = [
        value.removeprefix(_PREFIX)
        for kind, value in (certificate or {}).get("subjectAltName", ())
        if kind == "URI" and value.startswith(_PREFIX)
    ]
    return names[0] if len(names) == 1 and _usable(names[0]) else None


def _usable(name: str) -> bool:
    try:
        return bool(check_peer_id(name))
    except ConfigurationError:
        return False


class TLS:
    """How a node's streams are encrypted, TLS 1.2 or later.

    ``certificate``, ``key``: PEM files, this node's own (the certificate may bring its chain); without ``key`` the
    certificate's file has both.  ``authority``: a PEM file of those who may have signed the peers' certificates; with
    it both sides show one (mutual TLS).  Without, the channel is encrypted and proves nothing: use a pre-shared key.
    ``password``: of the key.  ``identity``: which peer id a verified certificate names.

    Raises ConfigurationError for files that cannot be used.
    """

    def __init__(
        self,
        certificate: StrPath,
        key: StrPath | None = None,
        *,
        authority: StrPath | None = None,
        password: str | None = None,
        identity: Callable[[Any], str | None] = identity_of,
    ) -> None:
        self._files = [os.fspath(each) for each in (certificate, key, authority) if each is not None]
        self._make: Callable[[], _Contexts] = partial(_contexts, certificate, key, authority, password)
        self._identity = identity
        self._hostname: str | None = None
        #: are the peers' certificates verified?
        self.verifies = authority is not None
        self._stamp = self._stamped()
        self._acceptor, self._dialer, self._certificate = self._make()

    @classmethod
    def of(
        cls,
        acceptor: ssl.SSLContext,
        dialer: ssl.SSLContext,
        certificate: bytes = b"",
        *,
        hostname: str | None = None,
        identity: Callable[[Any], str | None] = identity_of,
    ) -> Self:
        """Contexts of your own, for accepting and for dialling.

        ``certificate``: the one that the acceptor shows, DER; a pre-shared key over TLS is bound to it.  ``hostname``:
        what the certificate of whoever is dialled is compared with, where the context asks for that.  Raises
        ConfigurationError for contexts that verify on one side only, or allow less than TLS 1.2.
        """
        tls = cls.__new__(cls)
        verifies = {context.verify_mode is ssl.CERT_REQUIRED for context in (acceptor, dialer)}
        if len(verifies) > 1:
            raise ConfigurationError(
                "one of the contexts verifies certificates and the other does not: a node is authenticated in both "
                "roles; set verify_mode to CERT_REQUIRED in both, or in neither and use a pre-shared key"
            )
        if any(_allows_old(context) for context in (acceptor, dialer)):
            raise ConfigurationError("a context allows TLS below 1.2; set its minimum_version to TLSVersion.TLSv1_2")
        if dialer.check_hostname and hostname is None:
            raise ConfigurationError(
                "the dialer's context compares host names, so say which (hostname=...), or set its check_hostname to "
                "False: what counts here is the peer id that the certificate names"
            )
        for context in (acceptor, dialer):
            context.options |= ssl.OP_NO_RENEGOTIATION
        tls._files, tls._stamp = [], ()
        tls._make = partial(tuple[Any, ...], (acceptor, dialer, certificate))
        tls._identity, tls._hostname = identity, hostname
        tls.verifies = verifies == {True}
        tls._acceptor, tls._dialer, tls._certificate = acceptor, dialer, certificate
        return tls

    @classmethod
    def self_signed(cls) -> Self:
        """A certificate made for this process, which nobody has signed; a pre-shared key is bound to it.

        Raises ConfigurationError where the package *cryptography* is missing (``pip install networkio[tls]``).
        """
        from .certificates import throwaway

        with throwaway() as (certificate, key):
            acceptor, dialer, der = _contexts(certificate, key, None, None)
        return cls.of(acceptor, dialer, der)

    def __repr__(self) -> str:
        files = ", ".join(printable(name) for name in self._files) or "contexts"
        return f"<TLS {files}{'' if self.verifies else ', peers not verified'}>"

    def channel(self, connection: Connection) -> Channel:
        """For a node: what carries this connection.  Files that have changed are read again before."""
        self._refresh()
        context = self._dialer if connection.dialer else self._acceptor
        return Channel(
            connection, context, certificate=self._certificate, identity=self._identity,
            hostname=self._hostname if connection.dialer else None,
        )  # fmt: skip

    def _refresh(self) -> None:
        stamp = self._stamped()
        if stamp == self._stamp:
            return
        try:
            self._acceptor, self._dialer, self._certificate = self._make()
        except ConfigurationError as error:  # half written: the ones before are good until they have changed again
            logger.warning("changed certificates are not used: %s", error)
        self._stamp = stamp

    def _stamped(self) -> Stamp:
        """What tells a file from its successor."""
        stamps = []
        for name in self._files:
            try:
                facts = os.stat(name)
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((facts.st_mtime_ns, facts.st_size, facts.st_ino))
        return tuple(stamps)


def _allows_old(context: ssl.SSLContext) -> bool:
    lowest = context.minimum_version
    return lowest is not ssl.TLSVersion.MAXIMUM_SUPPORTED and lowest < ssl.TLSVersion.TLSv1_2  # the least is negative


def _contexts(
    certificate: StrPath, key: StrPath | None, authority: StrPath | None, password: str | None
) -> _Contexts:
    """That of the acceptor, that of the dialer, and the certificate itself (DER)."""
    made = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION  # which would come in the middle of what is being written
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE if authority is None else ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(certificate, key, password or "")
            if authority is not None:
                context.load_verify_locations(authority)
            der = _first_certificate(certificate)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            names = ", ".join(printable(os.fspath(each)) for each in (certificate, key, authority) if each is not None)
            raise ConfigurationError(f"the certificates of {names} cannot be used: {_words(error)}") from error
        made.append(context)
    acceptor, dialer = made
    acceptor.num_tickets = 0  # nothing resumes a TLS session here
    return acceptor, dialer, der


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"{(error.reason or 'they are no PEM files, or the password is wrong').lower().replace('_', ' ')}"
    return printable(getattr(error, "strerror", None) or error)


def _first_certificate(path: StrPath) -> bytes:
    """The first one in the file (DER), by whatever name PEM calls it."""
    with open(path, encoding="latin-1") as file:
        found = re.search(r"-----BEGIN ((?:X509 )?CERTIFICATE)-----(.*?)-----END \1-----", file.read(), re.DOTALL)
    if found is None:
        raise ValueError("there is no certificate")
    return base64.b64decode(found[2])
