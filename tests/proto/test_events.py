"""Notices tell the present and never change; effects are told apart by identity; each is of a declared kind."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest

from networkio_proto import Config, Endpoint, events
from networkio_proto.errors import ConnectionLost
from networkio_proto.events import (
    Abandon,
    Close,
    Dial,
    Effect,
    Event,
    Gap,
    GapRange,
    MessagesRead,
    MessagesReady,
    PeerConnected,
    PeerDisconnected,
    Positions,
    ResumeReport,
    SessionEnded,
    Transmit,
    Wake,
)
from networkio_proto.ledger import Ledger
from tests.proto.helpers import pair

NOTICES: tuple[type, ...] = get_args(Event)
EFFECTS: tuple[type, ...] = get_args(Effect)
FACTS = (Positions, GapRange, ResumeReport)

REPORT = ResumeReport(True, 2, False, "B", 3, 1.5)


def fields(kind: type) -> list[str]:
    return [item.name for item in dataclasses.fields(kind)]


def test_the_module_exports_every_notice_and_effect_and_what_they_consist_of() -> None:
    kinds = {kind.__name__ for kind in (*NOTICES, *EFFECTS, *FACTS)}
    assert kinds | {"Event", "Effect"} == set(events.__all__)
    assert kinds == {name for name, thing in vars(events).items() if dataclasses.is_dataclass(thing)} - {"Ledger"}


@pytest.mark.parametrize("kind", [*NOTICES, *EFFECTS, *FACTS])
def test_whatever_is_told_is_frozen_and_small(kind: type) -> None:
    told = kind(*[None] * len(fields(kind)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(told, fields(kind)[0], 1)
    assert not hasattr(told, "__dict__")


@pytest.mark.parametrize("kind", NOTICES)
def test_a_notice_names_its_peer_first(kind: type) -> None:
    assert fields(kind)[0] == "peer"
    assert kind("b", *[None] * (len(fields(kind)) - 1)).peer == "b"


def test_notices_with_the_same_content_are_equal() -> None:
    assert MessagesReady("b") == MessagesReady("b") != MessagesReady("c")
    assert MessagesRead("b", 3) == MessagesRead("b", through=3) != MessagesRead("b", 4)
    assert PeerConnected("b", REPORT) == PeerConnected("b", dataclasses.replace(REPORT))
    assert Gap("b", (GapRange(1, 2, 3),)) == Gap("b", (GapRange(1, 2, 3),))
    assert SessionEnded("b", Ledger(accepted=1)) != SessionEnded("b", Ledger(accepted=2))
    error = ConnectionLost()
    assert PeerDisconnected("b", error, None) == PeerDisconnected("b", error, None)


@pytest.mark.parametrize("kind", EFFECTS)
def test_effects_are_told_apart_by_identity(kind: type) -> None:
    one, other = (kind(*[None] * len(fields(kind))) for _ in range(2))
    assert one != other
    assert len({one, other}) == 2


def test_a_driver_can_match_on_every_effect_of_an_endpoint() -> None:
    endpoint = Endpoint("a", Config())
    target = endpoint.add_target("address", 0.0, to="b")
    dial = target.dial
    assert dial is not None
    connection = endpoint.connect(dial, 0.0)
    connection.connection_lost(1.0)
    other = endpoint.add_target("another", 1.0)
    endpoint.remove_target(other)
    seen: list[Any] = []
    while (effect := endpoint.next_effect()) is not None:
        match effect:
            case Dial(target=found):
                seen.append(found)
            case Abandon(dial=given_up):
                seen.append(given_up.target)
            case Transmit(connection=sending):
                seen.append(sending)
            case Close(connection=ended, flush=flush):
                seen.append((ended, flush))
            case Wake(session=session):
                seen.append(session)
    assert [item for item in seen if item is not None] == [target, connection, (connection, False), other, other]


def test_a_world_tells_of_kinds_that_are_declared_and_of_nothing_else() -> None:
    world = pair()
    a, b = world.hosts["a"], world.hosts["b"]
    a.send("b", b"one", b"two")
    world.run(1.0)
    b.read("a")
    b.end("a")
    world.run(1.0)
    b.restart()
    world.run(60.0)
    told = [*a.notices, *b.notices]
    assert {type(notice) for notice in told} <= set(NOTICES)
    assert {MessagesRead, PeerConnected, PeerDisconnected} <= {type(notice) for notice in a.notices}
    assert {notice.peer for notice in a.notices} == {"b"}
