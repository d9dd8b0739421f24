"""How long the machines look: the same few examples in every run, or as many new ones as are asked for.

``HYPOTHESIS_PROFILE=deep`` plays twenty times as many games, of twice the length, new ones in every run; hypothesis
keeps in ``.hypothesis`` what failed, and tries that first in the next run.  ``HYPOTHESIS_PROFILE=quick`` shows the
first failure as it is, without the minutes that it takes to find a small one.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

__all__ = ["DEEP", "machine", "property_of_bytes"]

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"

_PHASES = [phase for phase in Phase if phase is not Phase.shrink or os.environ.get("HYPOTHESIS_PROFILE") != "quick"]

_CALM = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def machine(examples: int, steps: int) -> settings:
    """For a state machine: so many games of so many steps in an ordinary run."""
    return settings(property_of_bytes(examples), stateful_step_count=2 * steps if DEEP else steps)


def property_of_bytes(examples: int) -> settings:
    """For a target that is given bytes."""
    if DEEP:
        return settings(max_examples=20 * examples, deadline=None, suppress_health_check=_CALM)
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=_PHASES,
        suppress_health_check=_CALM,
    )
