"""What machines do to their processes beside letting them die: the moves of a game that need a special machine.

Each function here is a kind of move in :data:`~networkio_testing.swarm.MOVES`, and follows the rules of
:class:`~networkio_testing.game.Game`: always allowed, and without effect where it does not apply.
"""

from __future__ import annotations

from typing import Literal

from .disk import Death
from .game import Game

__all__ = ["crash_writing", "failed_sync", "finish_sync", "full_disk", "old_copy", "slow_disk"]


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
