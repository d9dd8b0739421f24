"""Where ids, nonces and jitter come from.

The core draws every random bit from a :class:`RandomSource` that it is given, so that a run is a pure function of its
inputs.  :class:`SystemRandomSource` is the default, and the one place in this package that is not pure.
"""

from __future__ import annotations

import random
from typing import Protocol

__all__ = ["RandomSource", "SystemRandomSource"]


class RandomSource(Protocol):
    """A source of randomness.  Ids and nonces need one that nobody can guess."""

    def randbytes(self, size: int) -> bytes:
        """``size`` random bytes."""
        ...

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


class SystemRandomSource(random.SystemRandom):
    """The operating system's generator, fit for ids and nonces."""
