"""A certificate that nobody signed, for the life of one process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryDirectory

from networkio_proto.errors import ConfigurationError

__all__ = ["throwaway"]

#: it is bound to by a key and trusted by nobody, so its dates mean little
_YEARS = timedelta(days=3650)


@contextmanager
def throwaway() -> Iterator[tuple[str, str]]:
    """The paths of a certificate and of its key, which are there inside of the block only and legible to nobody else.

    Raises ConfigurationError where the package *cryptography* is missing.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise ConfigurationError(
            "a certificate is made by the package cryptography, which is missing: pip install networkio[tls]"
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "networkio")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _YEARS)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with TemporaryDirectory(prefix="networkio-tls-") as directory:
        paths = os.path.join(directory, "certificate.pem"), os.path.join(directory, "key.pem")
        for path, content in zip(paths, (certificate.public_bytes(pem), secret), strict=True):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
        yield paths
