"""``networkio genkey``: a pre-shared key for two peers."""

from __future__ import annotations

from networkio_keys import append_key, key_line

__all__ = ["run"]


def run(one_id: str, other_id: str, key_id: str, path: str | None) -> int:
    """Print the key, or append it to the file.  Raises ConfigurationError, OSError."""
    line = key_line(one_id, other_id, key_id)
    if path is None:
        print(line)
    else:
        append_key(path, line)
    return 0
