"""Every interleaving of three simultaneous dials, and of two and three of which one connection is lost on the way.

The scene, and what can happen in it, are those of :mod:`tests.proto.test_collision`, which explores two dials; here a
judge watches, and worlds are forked.  ``make exhaust`` visits all of them; the quick form those of two dials of the
follower and one of the arbiter.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from networkio_proto import Endpoint
from networkio_proto.arbiter import Arbitration
from networkio_testing import Host, Judge
from tests.exhaustive.conversation import FULL, report
from tests.exhaustive.search import Graph, explore
from tests.proto.test_collision import Happening, Scene, breakable, happen, possible, state, survives


class Watched(Scene):
    """A scene with a judge, in which so many wires may be lost yet."""

    def __init__(self, *dials: str, met: bool, losses: int = 0) -> None:
        super().__init__(*dials, met=met)
        self.losses = losses
        self.lossy = losses > 0

    def host(self, *arguments: Any, **settings: Any) -> Host:
        if not self.watchers:
            Judge(self)
        return super().host(*arguments, **settings)


def moves(world: Watched) -> list[Happening]:
    """What can happen next; a wire is lost only where anything else could still come."""
    following = possible(world)
    return following + (breakable(world) if world.losses and following else [])


def make(world: Watched, happening: Happening) -> None:
    world.losses -= happening[0] in ("cut", "lose")
    happen(world, happening)


def name(world: Watched) -> str:
    return f"{world.losses} {state(world)}"


def finish(world: Watched) -> None:
    """One connection survives (after a loss: once whoever wants one has dialled again), and all that was said with it.

    The judge is content in the end too.
    """
    for host in world.hosts.values():
        host.endpoint.random = random.Random(host.name)
    if world.lossy:
        world.run(120.0)
    survives(world)
    world.run(1.0)
    [judge] = world.watchers
    assert isinstance(judge, Judge)
    judge.at_rest()


def search(dials: str, *, met: bool, losses: int = 0) -> Graph[Happening]:
    return explore(Watched(*dials, met=met, losses=losses), moves, make, name, finish)


CASES = [
    pytest.param("aab", True, 0, id="aab"),
    *(
        pytest.param(dials, met, losses, id=f"{dials}, {losses} lost{', strangers' * (not met)}")
        for dials, met, losses in (
            ("abb", True, 0), ("aaa", True, 0), ("bbb", True, 0), ("aab", False, 0), ("abb", False, 0),
            ("ab", True, 1), ("ab", False, 1), ("ab", True, 2), ("aab", True, 1), ("abb", True, 1),
        )
        if FULL
    ),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("dials", "met", "losses"), CASES)
def test_in_every_order_of_simultaneous_dials_one_connection_survives(dials: str, met: bool, losses: int) -> None:
    graph = search(dials, met=met, losses=losses)
    assert graph.states > 300
    report(
        f"dials {dials}{'' if met else ', strangers'}, {losses} lost: {graph.states} states, {graph.steps} steps,"
        f" {graph.ends} ends, {graph.orders()} orders"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "name", "without"),
    [
        pytest.param(Arbitration, "stale", lambda side, it: False, id="P-ARB-11"),
        pytest.param(Endpoint, "_close_rivals", lambda *_: None, id="P-ARB-13"),
    ],
)
def test_the_search_finds_what_goes_wrong_without_a_rule(
    place: type, name: str, without: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, without)
    with pytest.raises((AssertionError, ValueError)):
        search("aab", met=True)
