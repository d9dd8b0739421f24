"""How a command proves who it is, and asks others to: the options that all nodes of the command share."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from networkio_keys import load_keys
from networkio_proto import MTLS, PSK, Authenticator, ConfigurationError

__all__ = ["Trust", "add_trust_options", "trust_of"]


@dataclass(frozen=True)
class Trust:
    """What was said on the command line: files, by their paths."""

    insecure: bool = False
    keys: str | None = None
    tls: bool = False
    certificate: str | None = None
    private_key: str | None = None
    authority: str | None = None

    def options(self, peer_id: str) -> dict[str, Any]:
        """For the node of that id.  Raises ConfigurationError for what does not go together, and for useless files."""
        self._check()
        psk = None if self.keys is None else PSK(load_keys(self.keys, peer_id))
        if self.certificate is not None:
            from networkio_tls import TLS  # only now: it takes OpenSSL, which most runs do without

            tls = TLS(self.certificate, self.private_key, authority=self.authority)
            return {"tls": tls, "auth": MTLS(psk) if self.authority is not None else psk}
        if self.tls:
            from networkio_tls import TLS

            return {"tls": TLS.self_signed(), "auth": psk}
        auth: Authenticator | str | None = "insecure" if self.insecure else psk
        return {"auth": auth}

    def _check(self) -> None:
        if self.insecure and (self.keys or self.certificate or self.tls):
            raise ConfigurationError("--insecure proves nothing and encrypts nothing: leave it out, or the others")
        if self.certificate is None and (self.private_key or self.authority):
            raise ConfigurationError("--private-key and --authority go with --certificate FILE, this node's own")
        if self.certificate is not None and self.tls:
            raise ConfigurationError("--tls makes a certificate for this run; with --certificate there is one already")
        if self.keys is None and (self.tls or (self.certificate is not None and self.authority is None)):
            raise ConfigurationError(
                "a certificate that nobody signed proves nothing: add --keys FILE, to which it is bound, or, with "
                "--certificate, the --authority that signs the peers' certificates"
            )


def add_trust_options(command: Any) -> None:
    """The options, for an argparse parser."""
    command.add_argument(
        "--keys", metavar="FILE", help="prove identities by the pre-shared keys in FILE ('networkio genkey' makes them)"
    )
    command.add_argument(
        "--tls", action="store_true",
        help="with --keys: encrypt with TLS, by a certificate that is made for this run and bound to the key",
    )
    command.add_argument(
        "--certificate", metavar="FILE", help="encrypt with TLS; FILE (PEM) is this node's certificate"
    )
    command.add_argument(
        "--private-key", metavar="FILE", help="its key (PEM), if that is not in the certificate's file"
    )
    command.add_argument(
        "--authority", metavar="FILE", help="who signs the peers' certificates (PEM); with it these prove identities"
    )
    command.add_argument(
        "--insecure", action="store_true",
        help="talk to other machines, although nobody's identity is proved and nothing encrypted",
    )


def trust_of(arguments: argparse.Namespace) -> Trust:
    """What was given of them."""
    return Trust(
        arguments.insecure, arguments.keys, arguments.tls, arguments.certificate, arguments.private_key,
        arguments.authority,
    )  # fmt: skip
