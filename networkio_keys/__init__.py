"""Files of pre-shared keys: made, read, and refused where others could read them too.

Theory of operation
-------------------
One line is one key, of a pair of peers: both ids, the key's id, and the key in base64.  The same line serves both
sides, so a file is made once and copied: a node takes the lines that name it, and the other id is the peer.  Of several
keys of a pair the lowest line is the newest, and is the one that a dialer announces; all of them are good.  Empty lines
and lines that begin with ``#`` say nothing.

A key is worth what its file is: that has to be a plain file, owned by whoever runs the program, and closed to everybody
else.  No error says more of a line than its number.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat

from networkio_proto import MIN_KEY, ConfigurationError, check_peer_id
from networkio_proto.errors import printable

__all__ = ["append_key", "key_line", "load_keys", "parse_keys"]

_SIZE = 32

#: not through a symbolic link, and not waiting for somebody at the other end of what is no plain file
_CAREFULLY = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def key_line(one_id: str, other_id: str, key_id: str = "k1") -> str:
    """A new random key for these two, as a line of a file (without its end).  Raises ConfigurationError."""
    for peer_id in (one_id, other_id):
        check_peer_id(peer_id)
    if one_id == other_id:
        raise ConfigurationError(f"a key is shared by two: {one_id} stands there twice")
    if not key_id or len(key_id) > 64 or not key_id.isascii() or not key_id.isprintable() or " " in key_id:
        raise ConfigurationError("a key id is 1 to 64 printable characters of ASCII without spaces")
    return f"{one_id} {other_id} {key_id} {base64.b64encode(secrets.token_bytes(_SIZE)).decode()}"


def append_key(path: str | os.PathLike[str], line: str) -> None:
    """Put the line at the end of the file, which is made if there is none, for its owner alone.

    Never through a symbolic link.  Raises ConfigurationError for a file that others can read, OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _CAREFULLY, 0o600)
    try:
        facts = os.fstat(descriptor)
        _check_private(path, facts)
        added = line.encode("ascii") + b"\n"
        if facts.st_size:
            os.lseek(descriptor, -1, os.SEEK_END)
            if os.read(descriptor, 1) != b"\n":  # somebody edited it
                added = b"\n" + added
        os.write(descriptor, added)  # at once, whoever else writes
    finally:
        os.close(descriptor)


def load_keys(path: str | os.PathLike[str], node_id: str) -> dict[str, dict[str, bytes]]:
    """The keys of a node, for ``PSK``: by the peer's id, then by the key's id, the newest first.

    Raises ConfigurationError for a file that cannot be read, that others can read, or that has a line that is none.
    """
    try:
        with open(os.open(path, os.O_RDONLY | _CAREFULLY), encoding="ascii") as file:
            _check_private(path, os.fstat(file.fileno()))
            text = file.read()
    except OSError as error:
        raise ConfigurationError(f"the key file {_name(path)} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"the key file {_name(path)} is no text in ASCII") from None
    keys = parse_keys(text, node_id, _name(path))
    if not keys:
        raise ConfigurationError(f"the key file {_name(path)} has no key of {node_id}; 'networkio genkey' makes one")
    return keys


def parse_keys(text: str, node_id: str, where: str = "the keys") -> dict[str, dict[str, bytes]]:
    """The keys of a node in the text of a file; ``where`` names it in errors.  Raises ConfigurationError."""
    found: dict[str, dict[str, bytes]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        one_id, other_id, key_id, key = _parsed(words, f"{where}, line {number}")
        if node_id in (one_id, other_id):
            peer = other_id if node_id == one_id else one_id
            found[peer] = {key_id: key, **{name: each for name, each in found.get(peer, {}).items() if name != key_id}}
    return found


def _parsed(words: list[str], where: str) -> tuple[str, str, str, bytes]:
    if len(words) != 4:
        raise ConfigurationError(f"{where}: a line has two peer ids, a key id and a key, not {len(words)} words")
    one_id, other_id, key_id, encoded = words
    try:
        check_peer_id(one_id)
        check_peer_id(other_id)
        key = base64.b64decode(encoded, validate=True)
    except ConfigurationError:
        raise ConfigurationError(f"{where}: the first two words are to be peer ids") from None
    except binascii.Error:
        raise ConfigurationError(f"{where}: the key is not base64") from None
    if one_id == other_id:
        raise ConfigurationError(f"{where}: a key is shared by two peers, and one stands there twice")
    if len(key) < MIN_KEY:
        raise ConfigurationError(f"{where}: the key has less than {MIN_KEY} bytes")
    return one_id, other_id, key_id, key


def _check_private(path: str | os.PathLike[str], facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise ConfigurationError(f"the key file {_name(path)} is no plain file")
    if os.name != "posix":  # who may read a file is said in other ways there
        return
    if facts.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(f"the key file {_name(path)} belongs to another user, who could change it")
    if facts.st_mode & 0o077:
        raise ConfigurationError(f"others may read the key file {_name(path)}: chmod 600 it, or make new keys")


def _name(path: str | os.PathLike[str]) -> str:
    return printable(os.fspath(path))
