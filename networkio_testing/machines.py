"""What machines do to their processes beside letting them die: the moves of a game that need a special machine.

Each function here is a kind of move in :data:`~networkio_testing.swarm.MOVES`, and follows the rules of
:class:`~networkio_testing.game.Game`: always allowed, and without effect where it does not apply.
"""

from __future__ import annotations

from typing import Literal

from .disk import Death
from .game import Game

__all__ = [
    "crash_writing",
    "failed_sync",
    "finish_sync",
    "full_disk",
    "impersonate",
    "old_copy",
    "slow_disk",
    "stall",
    "stranger_answers",
    "stranger_comes",
    "stranger_floods",
    "stranger_leaves",
    "stranger_says",
    "suspend",
]

# -- disks ------------------------------------------------------------------------------------------------------------


def slow_disk(game: Game, name: str, seconds: float) -> None:
    """From now on a sync takes so long; ``inf``: until somebody finishes it."""
    if disk := game.disks.get(name):
        disk.delay = seconds


def finish_sync(game: Game, name: str) -> None:
    """What is being synced has arrived, in whatever way; then the next batch is begun."""
    disk, host = game.disks.get(name), game.hosts[name]
    if disk is not None and host.up and disk.finish(host):
        disk.serve(host)


def full_disk(game: Game, name: str, batches: int) -> None:
    """So many batches find no room."""
    if disk := game.disks.get(name):
        disk.full = batches


def failed_sync(game: Game, name: str, outcome: Literal["lost", "kept"]) -> None:
    """The next sync fails, for ever as far as this process is concerned."""
    if disk := game.disks.get(name):
        disk.failing = outcome


def crash_writing(game: Game, name: str, where: Death, reset: bool) -> None:
    """The process dies with the batch that is being written, or with its next."""
    disk, host = game.disks.get(name), game.hosts[name]
    if disk is not None and host.up:
        disk.doom, disk.doom_reset = where, reset


def old_copy(game: Game, name: str, share: float) -> None:
    """Somebody puts an old copy in place of a journal, or deletes it (0), and starts the process again."""
    disk, host = game.disks.get(name), game.hosts[name]
    if disk is not None:
        host.crash()
        disk.rewind(share)
        game.restart(name)


# -- clocks -----------------------------------------------------------------------------------------------------------


def stall(game: Game, name: str, seconds: float) -> None:
    """A process does something else for so long; what comes for it waits in the buffers of its system."""
    host = game.hosts[name]
    if host.up and not host.paused:
        host.pause()
        game.world.run(seconds)
        host.resume()


def suspend(game: Game, name: str, seconds: float, leap: bool) -> None:
    """A machine sleeps; its monotonic clock stands still for so long, or leaps over it afterwards."""
    host, clock = game.hosts[name], game.clocks.get(name)
    if clock is not None and host.up and not host.paused:
        host.pause()
        clock.stop(game.world.now)
        game.world.run(seconds)
        clock.go(game.world.now, leap=leap)
        host.resume()


# -- a third party ----------------------------------------------------------------------------------------------------


def stranger_comes(game: Game, name: str, what: str, count: int) -> None:
    """It dials a host, and says the beginning of something."""
    if game.adversary is not None:
        game.adversary.dial(game.hosts[name], what, count)


def stranger_answers(game: Game, name: str, what: str, count: int) -> None:
    """It answers where a host dials, and says the beginning of something."""
    if game.adversary is not None:
        game.misled = game.misled or not game.adversary.secret
        game.adversary.answer(game.hosts[name], what, count)


def stranger_floods(game: Game, name: str, what: str, number: int) -> None:
    """It begins many handshakes, and ends none."""
    for _ in range(number):
        stranger_comes(game, name, what, 150)


def stranger_says(game: Game, index: int, count: int) -> None:
    """It goes on somewhere."""
    if game.adversary is not None:
        game.adversary.say(index, count)


def stranger_leaves(game: Game, index: int, how: Literal["rst", "fin"]) -> None:
    """It breaks off somewhere."""
    if game.adversary is not None:
        game.adversary.leave(index, how)


def impersonate(game: Game, pair: str) -> None:
    """A real core with the id of the first and a wrong key dials the second."""
    if game.adversary is not None:
        game.adversary.impersonate(game.hosts[pair[1]], pair[0])
