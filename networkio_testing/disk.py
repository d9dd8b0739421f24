"""A disk for the journal of a simulated host, with everything that disks do to people.

Theory of operation
-------------------
The core asks for one batch of records at a time (:mod:`networkio_proto.journal`).  A batch is one transaction of the
journal: after a crash it is there as a whole, or not at all; a torn one is noticed at opening and thrown away.  While a
batch is being synced it is *volatile*, and the core goes on with other things.  The end of a sync is an event of its
own: at once, ``delay`` seconds later, or when somebody calls :meth:`Disk.finish`.

Then one thing happens of these.  The batch is durable and the core is told so.  The disk was *full*: nothing is
written, the core is told, and after a while the driver tries again.  The sync *failed*: nobody knows what is on the
disk, the core is told of the error, and the log stops for the rest of this process, for a failed sync must not be
tried again.  Or the process *dies*: before the batch is durable, with half of it written, between the disk and the
core, or right after the core was told.

:meth:`Disk.rewind` puts an old copy in place of the journal, or none at all.
"""

from __future__ import annotations

import errno
from collections import Counter
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, Literal

from networkio_proto.journal import JournalBatch, JournalRecord

if TYPE_CHECKING:
    from .world import Host

__all__ = ["DEATHS", "Death", "Disk"]

#: where a process dies: the batch is not on disk; half of it is; it is, and the core was not told; the core was told
Death = Literal["before", "torn", "after", "told"]
DEATHS: Final[tuple[Death, ...]] = ("before", "torn", "after", "told")

#: a driver whose disk was full tries again after so many seconds
_RETRY = 0.5


class Disk:
    """The journal of one host.  Hand it to ``World.host``; the host serves it after everything that its core does."""

    def __init__(self, *, inbox: bool = False) -> None:
        #: does the host keep what comes here, too (a durable inbox)?
        self.inbox = inbox
        #: what a crash leaves, a batch each, oldest first
        self.batches: list[tuple[JournalRecord, ...]] = []
        #: what is being synced, and would be lost
        self.writing: JournalBatch | None = None
        #: how long a sync takes (seconds); ``inf``: until :meth:`finish`
        self.delay = 0.0
        #: so many batches more find no room
        self.full = 0
        #: the next sync fails, and the batch is on disk all the same, or is not
        self.failing: Literal["kept", "lost"] | None = None
        #: a sync failed: this process writes no more
        self.stopped = False
        #: the process dies with its next batch
        self.doom: Death | None = None
        self.doom_reset = True
        #: batches that :meth:`rewind` took away since a process last opened it
        self.missing = 0
        #: half a batch stands at the end
        self.torn = False
        #: what happened to batches
        self.tally: Counter[str] = Counter()
        self._serving = False

    # -- the machine ----------------------------------------------------------------------------------------------

    def open(self) -> list[JournalRecord]:
        """A process begins: everything that is whole, oldest first."""
        self.stopped = self.torn = False
        return [record for batch in self.batches for record in batch]

    def lose(self) -> None:
        """The process is no more, and with it what was not synced."""
        if self.writing is not None:
            self.tally["lost"] += 1
        self.writing, self.doom, self.failing = None, None, None

    def rewind(self, share: float) -> None:
        """While nobody runs: an old copy, with this share of the batches; 0: the journal was deleted."""
        keep = int(len(self.batches) * share)
        self.missing += len(self.batches) - keep
        del self.batches[keep:]
        self.tally["rewound"] += 1

    def heal(self) -> None:
        """Nothing goes wrong any more; what is being synced is left to :meth:`finish`."""
        self.delay, self.full, self.failing, self.doom = 0.0, 0, None, None

    # -- the driver -----------------------------------------------------------------------------------------------

    def serve(self, host: Host) -> None:
        """Write what the core asks for, one batch at a time."""
        if self._serving or self.writing is not None or self.stopped or not host.up:
            return
        self._serving = True
        try:
            while self._begin(host) and not self.delay and self.finish(host):
                pass
        finally:
            self._serving = False

    def _begin(self, host: Host) -> bool:
        """The next batch, if there is one."""
        self.writing = batch = host.endpoint.journal_request() if host.up and not self.stopped else None
        if batch is None:
            return False
        for journaling in host.world.watchers.journaling:
            journaling(host, batch)
        if 0 < self.delay < inf:
            host.call_at(host.world.now + self.delay, partial(self._synced, host, batch))
        return True

    def _synced(self, host: Host, batch: JournalBatch) -> None:
        if self.writing is batch:  # else somebody called finish
            self.finish(host)

    def finish(self, host: Host) -> bool:
        """The sync is over, in one way or another; True if the next batch may follow at once."""
        batch, doom = self.writing, self.doom
        if batch is None or host.paused:
            return False
        self.writing = self.doom = None
        if doom == "before" or doom == "torn":
            self.torn = doom == "torn"
            return self._die(host, doom)
        error = self._write(batch)
        if doom == "after":
            return self._die(host, doom)
        host.endpoint.journal_done(batch.token, host.now, error)
        for journaled in host.world.watchers.journaled:
            journaled(host, batch, error)
        if doom == "told":
            return self._die(host, doom)
        if error is not None and not self.stopped:
            host.call_at(host.world.now + _RETRY, host.pump)
        host.pump()
        return error is None

    def _write(self, batch: JournalBatch) -> OSError | None:
        if self.full:
            self.full -= 1
            self.tally["full"] += 1
            return OSError(errno.ENOSPC, "no space left on device")
        failing, self.failing = self.failing, None
        if failing != "lost":
            self.batches.append(batch.records)
        if failing is not None:
            self.stopped = True
            self.tally["failed"] += 1
            return OSError(errno.EIO, "input/output error")
        self.tally["synced"] += 1
        return None

    def _die(self, host: Host, how: Death) -> bool:
        self.tally[f"died {how}"] += 1
        host.crash(reset=self.doom_reset)
        return False
