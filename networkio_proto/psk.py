"""Pre-shared keys: two peers that have the same secret prove it to each other, and show it to nobody.

Theory of operation
-------------------
Exactly the construction of the specification (*Pre-shared key*): a key for this one conversation is derived from the
secret, the transcript of everything said so far and the binding of the TLS channel; the mac of an ATTACH under it
covers role, both ids and the ATTACH itself.  The dialer proves first, so a scanner gets nothing to guess against.

A key belongs to a pair of peers: it is looked up by the id of the other side, and by the key id that the dialer
announced.  Who is not known takes the same way as who is wrong: a mac is computed, with a key that nobody has, and
compared in constant time (P-AUTH-11, P-AUTH-12).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from hashlib import scrypt, sha256
from typing import TypeAlias

from .auth import Proof, TLSFacts
from .config import check_peer_id
from .errors import ConfigurationError, printable

__all__ = ["MIN_KEY", "PSK", "Keys", "stretched"]

#: a key has at least so many bytes (P-AUTH-9)
MIN_KEY = 16

#: of so many bytes at least this many differ, in a key that is random: fewer are words, repetitions, or nothing at all
_DIFFERENT = 8

#: of a passphrase
_SHORTEST = 8

#: what stands for the key of whoever has none; what is computed with it is thrown away
_DECOY = bytes(32)

#: the key that is shared with a peer; or several, by their key ids, the first of which is announced when dialling
Keys: TypeAlias = "bytes | Mapping[str, bytes]"


class PSK:
    """Authentication by pre-shared keys: ``Node("client-123", auth=PSK({"server-001": key}))``.

    ``keys``: for each peer the key that is shared with it, ``bytes`` of at least 16 that are random; or, while keys are
    changed, several by their key ids, the first one to be announced when dialling and all of them good.  Or a callable:
    given a peer id it returns the same, or None; what it raises, or returns otherwise, counts as None and is told in
    the log.

    Without TLS the keys protect the handshake and nothing after it (P-AUTH-13).  Inside of TLS they are bound to the
    acceptor's certificate, which then needs nobody's signature.

    Raises ConfigurationError for what is no key.  Keys are in no repr, error or log line.
    """

    name = "psk"

    def __init__(self, keys: Mapping[str, Keys] | Callable[[str], Keys | None]) -> None:
        self._lookup: Callable[[str], Keys | None] = _checked(keys)

    def __repr__(self) -> str:
        return "PSK(...)"

    def __reduce__(self) -> str:
        raise ConfigurationError("keys are not pickled; hand them over in a file that only their owner can read")

    def replace(self, keys: Mapping[str, Keys] | Callable[[str], Keys | None]) -> None:
        """From now on these are the keys.  Connections that stand are left alone: ``node.recheck()`` looks at them."""
        self._lookup = _checked(keys)

    # -- as Authenticator ---------------------------------------------------------------------------------------

    def key_id(self, peer_id: str | None) -> str | None:
        """The id of the key to dial that peer with, if it has one.

        Raises ConfigurationError where nobody can be dialled: without a peer id, and for a peer without a key.
        """
        if peer_id is None:
            raise ConfigurationError("with pre-shared keys a node has to know whom it dials: give the peer's id")
        try:
            keys = self._keys_of(peer_id)
        except Exception as error:  # the application's lookup may raise anything, and a key of its may be none
            kind = type(error).__name__
            raise ConfigurationError(f"the key for {printable(peer_id)} cannot be looked up: {kind}") from error
        if not keys:
            raise ConfigurationError(f"there is no key for {printable(peer_id)}: add it to the node's PSK")
        return next(iter(keys))

    def sign(self, proof: Proof) -> bytes | None:
        """The mac of our ATTACH."""
        return _mac(self._key(_other(proof, own=True), proof.key_id)[0] or _DECOY, proof)

    def verify(self, proof: Proof, mac: bytes | None, tls: TLSFacts | None) -> bool:
        """Has the peer the same key?  What the callable raises is raised when all is computed and compared."""
        key, trouble = self._key(_other(proof, own=False), proof.key_id)
        same = hmac.compare_digest(_mac(key or _DECOY, proof), mac or b"")
        if trouble is not None:
            raise trouble
        return same and key is not None

    def _key(self, peer_id: str, key_id: str | None) -> tuple[bytes | None, Exception | None]:
        """The key, and why none could be told."""
        try:
            return self._keys_of(peer_id).get(key_id), None
        except Exception as error:
            return None, error

    def _keys_of(self, peer_id: str) -> Mapping[str | None, bytes]:
        """By their key ids; a single key has none."""
        keys = self._lookup(peer_id)
        if keys is None:
            return {}
        _check(peer_id, keys)
        return {None: keys} if isinstance(keys, bytes) else dict(keys.items())


def stretched(passphrase: str, one_id: str, other_id: str) -> bytes:
    """A key made of a passphrase that two peers agreed on; takes a tenth of a second, and 32 MiB.

    Whoever records a handshake can try passphrases, ten a second and processor.  A random key is better.  Raises
    ConfigurationError for less than 8 characters, and for what are no peer ids.
    """
    if len(passphrase) < _SHORTEST:
        raise ConfigurationError(f"a passphrase has at least {_SHORTEST} characters, better four or five random words")
    salt = b"networkio/1 psk" + b"".join(_lp(check_peer_id(each).encode()) for each in sorted((one_id, other_id)))
    return scrypt(passphrase.encode(), salt=salt, n=2**15, r=8, p=1, maxmem=2**26, dklen=32)


def _checked(keys: Mapping[str, Keys] | Callable[[str], Keys | None]) -> Callable[[str], Keys | None]:
    if not isinstance(keys, Mapping):
        if not callable(keys):
            raise ConfigurationError(f"keys are a mapping from peer ids, or a callable, not {type(keys).__name__}")
        return keys
    for peer_id, each in keys.items():
        _check(check_peer_id(peer_id), each)
    return dict(keys).get


def _check(peer_id: str, keys: Keys) -> None:
    """Raise ConfigurationError for what is no key, without showing it."""
    if isinstance(keys, Mapping):
        if not keys:
            raise ConfigurationError(f"there is no key for {peer_id}: its mapping is empty")
        for key_id, key in keys.items():
            if not isinstance(key_id, str) or not 0 < len(key_id) <= 64:
                raise ConfigurationError(f"a key id for {peer_id} is no text of 1 to 64 characters")
            _check_key(f"the key {printable(key_id)} for {peer_id}", key)
    else:
        _check_key(f"the key for {peer_id}", keys)


def _check_key(which: str, key: object) -> None:
    if not isinstance(key, bytes):
        hint = "; of a passphrase stretched() makes one" if isinstance(key, str) else ""
        raise ConfigurationError(f"{which} is {type(key).__name__}, not bytes{hint}")
    if len(key) < MIN_KEY:
        raise ConfigurationError(f"{which} has {len(key)} bytes; it must have at least {MIN_KEY}, and be random")
    if len(set(key)) < _DIFFERENT:
        raise ConfigurationError(f"{which} is not random; 'networkio genkey' and secrets.token_bytes(32) make one")


def _other(proof: Proof, *, own: bool) -> str:
    """The peer's id, in the proof that this side makes (``own``) or has got."""
    return proof.acceptor_id if (proof.role == b"D") is own else proof.dialer_id


def _lp(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _mac(key: bytes, proof: Proof) -> bytes:
    """The mac of the specification."""
    binding = b"tls-server-end-point:" + proof.binding if proof.binding else b""
    transcript = sha256(b"networkio/1" + _lp(proof.transcript) + _lp(binding)).digest()
    derived = hmac.digest(hmac.digest(transcript, key, "sha256"), b"auth\x01", "sha256")  # HKDF, RFC 5869
    dialer, acceptor = _lp(proof.dialer_id.encode()), _lp(proof.acceptor_id.encode())
    if proof.role == b"D":
        covered = b"D" + dialer + acceptor + proof.attach
    else:
        covered = b"A" + acceptor + dialer + proof.dialer_mac + proof.attach
    return hmac.digest(derived, covered, "sha256")
