"""The pytest plugin: fixtures with a virtual clock and a network that a test breaks.  It comes with networkio.

It is a package of its own because pytest imports it at the start of every run, wherever networkio is installed: it must
cost nothing there, so whatever else it needs is imported inside of its fixtures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from networkio_testing import SimulatedNetwork, VirtualNetwork


#: did the test itself, its fixtures apart, come to its end?
_ENDED = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Note how the test went."""
    if call.when == "call":
        item.stash[_ENDED] = call.excinfo is None


@pytest.fixture
def networkio_seed() -> int:
    """What the networks of this test are seeded with: 0, unless you define or parametrize it."""
    return 0


@pytest.fixture
def networkio_world(networkio_seed: int, request: pytest.FixtureRequest) -> Iterator[SimulatedNetwork]:
    """Nodes with a blocking interface, in virtual time, on a network that you break; checked when the test is over."""
    from networkio_testing import SimulatedNetwork

    network = SimulatedNetwork(networkio_seed)
    yield network
    if request.node.stash.get(_ENDED, False):  # else the test has said what is wrong, or was left early
        network.check()


@pytest.fixture
def networkio_virtual(networkio_seed: int, request: pytest.FixtureRequest) -> Iterator[VirtualNetwork]:
    """Nodes of networkio_asyncio, in virtual time, on a network that you break; checked when the test is over."""
    from networkio_testing import VirtualNetwork

    network = VirtualNetwork(networkio_seed)
    yield network
    if request.node.stash.get(_ENDED, False):
        network.check()
