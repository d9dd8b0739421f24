"""Certificates for tests, good and bad, made when they are needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from networkio_tls import TLS

__all__ = ["Authority"]

_PEM = serialization.Encoding.PEM


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


class Authority:
    """Signs certificates, and keeps everything in files of one directory."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self._name = _named(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.path = directory / f"{name}.pem"
        certificate = self._begun(self._name, self._key.public_key(), 30).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.path.write_bytes(certificate.sign(self._key, hashes.SHA256()).public_bytes(_PEM))

    def _begun(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + timedelta(days=days))
        )

    def sign(
        self, file: str, *names: str, days: int = 30, usage: x509.ObjectIdentifier | None = None, password: str = ""
    ) -> tuple[Path, Path]:
        """A certificate with these URIs as its names, and its key; the paths of both."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._begun(_named(file), key.public_key(), days)
        if names:
            uris = [x509.UniformResourceIdentifier(name) for name in names]
            certificate = certificate.add_extension(x509.SubjectAlternativeName(uris), critical=False)
        if usage is not None:
            certificate = certificate.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        paths = self.directory / f"{file}.pem", self.directory / f"{file}.key"
        paths[0].write_bytes(certificate.sign(self._key, hashes.SHA256()).public_bytes(_PEM))
        hidden: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password:
            hidden = serialization.BestAvailableEncryption(password.encode())
        paths[1].write_bytes(key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, hidden))
        return paths

    def tls(self, peer_id: str, *, authority: Authority | None = None) -> TLS:
        """What a node of that id would use."""
        certificate, key = self.sign(peer_id, f"networkio:{peer_id}")
        return TLS(certificate, key, authority=(authority or self).path)
