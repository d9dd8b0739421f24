"""An authenticator for tests: pre-shared keys, written from the specification (Authentication) and nothing else."""

from __future__ import annotations

import hashlib
import hmac
from struct import pack

from networkio_proto import Proof, TLSFacts

__all__ = ["HmacAuth", "hkdf", "mac_of", "transcript_hash"]


def lp(data: bytes) -> bytes:
    """The length as u32, then the data."""
    return pack(">I", len(data)) + data


def transcript_hash(transcript: bytes, certificate: bytes = b"") -> bytes:
    """``th``: everything said before ATTACH, and the channel; ``certificate`` is the SHA-256 of the acceptor's."""
    binding = b"tls-server-end-point:" + certificate if certificate else b""
    return hashlib.sha256(b"networkio/1" + lp(transcript) + lp(binding)).digest()


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA-256 for 32 bytes (RFC 5869), which are one block."""
    extracted = hmac.digest(salt, key, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def mac_of(key: bytes, proof: Proof) -> bytes:
    """The mac that proves what the proof covers."""
    derived = hkdf(key, transcript_hash(proof.transcript, proof.binding), b"auth")
    dialer, acceptor = lp(proof.dialer_id.encode()), lp(proof.acceptor_id.encode())
    if proof.role == b"D":
        covered = b"D" + dialer + acceptor + proof.attach
    else:
        covered = b"A" + acceptor + dialer + proof.dialer_mac + proof.attach
    return hmac.digest(derived, covered, "sha256")


class HmacAuth:
    """One key, shared by all who are told it.  Keeps the proofs that it signed and verified."""

    name = "psk"

    def __init__(self, key: bytes, key_id: str | None = None) -> None:
        self._key = key
        self._key_id = key_id
        self.signed: list[Proof] = []
        self.verified: list[Proof] = []

    def key_id(self, peer_id: str | None) -> str | None:
        return self._key_id

    def sign(self, proof: Proof) -> bytes:
        self.signed.append(proof)
        return mac_of(self._key, proof)

    def verify(self, proof: Proof, mac: bytes | None, tls: TLSFacts | None) -> bool:
        self.verified.append(proof)
        return mac is not None and hmac.compare_digest(mac, mac_of(self._key, proof))
