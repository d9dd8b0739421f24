"""A crash of either node before each effect that its core asks for, in the canonical conversation.

An effect is the smallest thing that a driver does for its core: bytes written, a dial, a notice told.  What the core
has decided and its driver has not yet carried out is gone with the process.  The process comes back at once (the peer
learns that it died), much later (it learns nothing), or never.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import pytest

from networkio_proto import Effect
from networkio_testing import Host
from networkio_testing.world import Watcher
from tests.exhaustive.conversation import STEPS, Conversation, dump, load, report

When: TypeAlias = Literal["now", "later", "never"]

_PEER: Final = {"a": "b", "b": "a"}


class Crash(Exception):
    """The process is gone in the middle of what it did."""


class Fuse(Watcher):
    """Counts the effects of one host, and raises Crash before the one that is told."""

    def __init__(self, name: str, fatal: int) -> None:
        self.name = name
        self.left = fatal

    def effect(self, host: Host, effect: Effect) -> None:
        if host.name == self.name:
            self.left -= 1
            if self.left < 0:
                raise Crash


def boundaries(name: str) -> Iterator[tuple[bytes, int]]:
    """Each effect of the host: the conversation before the step in which it comes, and its number in that step."""
    conversation = Conversation()
    while conversation.step < len(STEPS):
        before, fuse = dump(conversation), Fuse(name, 1 << 30)
        conversation.world.watchers.insert(0, fuse)
        conversation.play_step()
        conversation.world.watchers.remove(fuse)
        for number in range((1 << 30) - fuse.left):
            yield before, number


def crashed(before: bytes, name: str, number: int, when: When) -> Conversation:
    """The conversation in which the process dies there, until it is back (or will never be)."""
    conversation = load(before)
    fuse = Fuse(name, number)
    conversation.world.watchers.insert(0, fuse)
    with pytest.raises(Crash):
        conversation.play_step()
    conversation.world.watchers.remove(fuse)
    conversation.crash(name, reset=when == "now")
    if when == "never":
        conversation.play()
    else:
        conversation.flow(0.0 if when == "now" else 70.0)
        conversation.restart(name)
    return conversation


def look(conversation: Conversation) -> None:
    """Whatever a process that still lives took on was heard, by each process once and in order.

    Whatever a new process is handed that its predecessor had is flagged.
    """
    for who in "ab":
        lives: dict[int, list[bytes]] = {}
        for item in conversation.handed:
            if item.to == who:
                earlier = [payload for life, heard in lives.items() if life < item.life for payload in heard]
                assert item.redelivered or item.payload not in earlier, item
                lives.setdefault(item.life, []).append(item.payload)
        for heard in lives.values():
            assert heard == sorted(set(heard)), who
    for sender, life, payload in conversation.taken_on:
        if life == conversation.hosts[sender].lives:
            assert payload in conversation.heard(_PEER[sender])


@pytest.mark.slow
@pytest.mark.parametrize("when", ["now", "later", "never"])
@pytest.mark.parametrize("name", ["a", "b"])
def test_whenever_a_process_dies_the_other_loses_nothing_and_repeats_only_what_it_flags(name: str, when: When) -> None:
    crashes = flagged = 0
    for before, number in boundaries(name):
        try:
            conversation = crashed(before, name, number, when)
            if when == "never":
                survives_alone(conversation, _PEER[name])
            else:
                conversation.heal()
                look(conversation)
        except AssertionError as error:
            error.add_note(f"{name} died before effect {number} of step {load(before).step + 1}, and came back {when}")
            raise
        crashes += 1
        flagged += any(item.redelivered for item in conversation.handed)
    assert crashes > 60
    assert (flagged > 10) == (when != "never")
    report(f"crashes of {name}, back {when}: {crashes} (in {flagged} something was redelivered)")


def survives_alone(conversation: Conversation, name: str) -> None:
    """The survivor keeps what nobody read, says what it waits for, and neither spins nor grows."""
    host, judge = conversation.hosts[name], conversation.judge
    session = host.session(_PEER[name])
    conversation.flow(600.0)
    conversation.read()
    kept, dialled = session.unacknowledged, session.statistics(conversation.world.now).dials_failed
    conversation.flow(600.0)
    judge.audit(host)
    assert not session.connected
    assert not host.endpoint.connections
    assert session.unacknowledged == kept
    more = session.statistics(conversation.world.now).dials_failed - dialled
    assert more <= 120, f"{more} dials in 600 s"
    assert more > 10 or name == "b" or not kept
    assert more == 0 or name == "a"
