"""What is fuzzed: each target is a function of bytes that returns if all is well, and raises whatever it finds.

Theory of operation
-------------------
A target makes something new of the core, lets the bytes loose on it, and judges: there are events or one clean close,
never an exception; what is kept is bounded; and the same bytes in other chunks come to the same.  Nothing else goes in:
the same bytes have the same result in every process, so that a finding is a file.

Two ways of reading the bytes help the fuzzer past the first checks.  A *mended* stream has every length that points
beyond its end cut down, so that a mutation in a length makes other frames instead of the end.  A *program* (``live``,
``psk``) is read byte by byte as operations of both sides, which mostly are allowed and sometimes are not.

The driver and most of the oracle are ``tests.proto.helpers_wire.Node``: it carries out every effect, and insists on one
Close for a connection, no effect after it, no empty buffers, and no amplification.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.fuzz.codec_targets import maps, objects, payload
from tests.fuzz.live_target import live
from tests.fuzz.psk_target import psk
from tests.fuzz.wire_targets import acceptor, dialer, frames, stream

__all__ = ["CORPUS", "TARGETS", "Target", "seeds"]

Target = Callable[[bytes], None]

TARGETS: dict[str, Target] = {
    target.__name__: target for target in (frames, maps, payload, objects, acceptor, dialer, stream, live, psk)
}

CORPUS = Path(__file__).with_name("corpus")


def seeds(name: str) -> list[Path]:
    """The inputs of a target that are kept: where the fuzzer begins, and what was once found."""
    return sorted((CORPUS / name).iterdir())
