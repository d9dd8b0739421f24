"""Both adapters over networks that really break, in the short forms of ``make networks``.

Every scenario looks at every message and every receipt; what else it promises stands with it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.networks import scenarios
from tests.networks.conversation import World, converse
from tests.networks.network import Direction, Missing, namespaces, sweep, why_not

pytestmark = pytest.mark.slow


class Keeper:
    """One world for all scenarios, because processes take long to start; a new one after a failure."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._world: World | None = None

    @contextmanager
    def lend(self) -> Iterator[World]:
        """The world; what a scenario finds missing on this machine skips its test."""
        if self._world is None:
            self._world = self._stack.enter_context(converse(nodes=3, **scenarios.QUICK))
        try:
            with permitted():
                yield self._world
        except Exception:
            self._world = None
            self._stack.__exit__(*sys.exc_info())
            raise

    def close(self) -> None:
        """The end: all must end well."""
        self._stack.close()


@contextmanager
def permitted() -> Iterator[None]:
    """What is missing on this machine skips the test, and says so."""
    try:
        yield
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module", autouse=True)
def networks_of_our_own() -> None:
    """Where this machine permits none, every test is skipped."""
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def slow_links() -> Iterator[dict[str, Future[scenarios.Figures]]]:
    """What takes long and has little to do: beside all the others, if it is to be run at all."""
    with ThreadPoolExecutor() as pool:
        yield {
            "lossy": pool.submit(scenarios.slow, 20.0, discipline=scenarios.SHORT,
                                 dead_after=10.0, ping_after=4.0, write_stall=10.0),
            "slowed": pool.submit(scenarios.slowed, 16.0, discipline=scenarios.SHORT,
                                  dead_after=20.0, ping_after=1.0, write_stall=8.0),
        }


@pytest.fixture(scope="module")
def keeper(request: pytest.FixtureRequest) -> Iterator[Keeper]:
    if any("slow_links" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("slow_links")
    made = Keeper()
    yield made
    made.close()


@pytest.mark.parametrize("direction", ["both", "there", "back"])
def test_a_link_that_died_without_a_word_is_noticed_in_time(keeper: Keeper, direction: Direction) -> None:
    with keeper.lend() as world:
        figures = scenarios.half_open(world, direction)
        assert figures["noticed_in_time"] == figures["of"] == (12 if direction == "both" else 6)


def test_a_link_that_goes_down_and_up_again(keeper: Keeper) -> None:
    with keeper.lend() as world:
        scenarios.link_down(world)


def test_connections_that_are_reset_on_the_way(keeper: Keeper) -> None:
    with keeper.lend() as world:
        scenarios.reset(world)


def test_sockets_that_are_killed_again_and_again(keeper: Keeper) -> None:
    with keeper.lend() as world:
        scenarios.killed_sockets(world)


def test_processes_that_stand_still_while_their_peers_come_back_on_another_connection(keeper: Keeper) -> None:
    with keeper.lend() as world:
        scenarios.paused(world)


def test_hardly_any_room_in_the_kernel() -> None:
    with permitted():
        scenarios.narrow()


def test_a_slow_and_lossy_link_is_no_dead_one(slow_links: dict[str, Future[scenarios.Figures]]) -> None:
    with permitted():
        slow_links["lossy"].result()


def test_a_link_that_becomes_slow_is_no_dead_one(slow_links: dict[str, Future[scenarios.Figures]]) -> None:
    with permitted():
        figures = slow_links["slowed"].result()
        assert min(figures["bytes_in_the_kernel"]) > 32_000 * 8  # so many pass in the time of a stall


def test_what_a_killed_process_left_behind_is_deleted() -> None:
    program = "from tests.networks.network import Network; Network().__enter__(); print('made', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"made\n"
        sweep()
        assert list(namespaces().values()).count(process.pid) == 2  # as long as it lives
        process.kill()
    sweep()
    assert process.pid not in namespaces().values()
