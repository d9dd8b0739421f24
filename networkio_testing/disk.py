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

A *load* brings messages back that the core has no longer in memory.  It takes as long as a sync, may be under way
beside one, and fails in the place of the next.

:meth:`Disk.rewind` puts an old copy in place of the journal, or none at all.
"""

from __future__ import annotations

import errno
from array import array
from collections import Counter, defaultdict
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, Literal

from networkio_proto import COST_PER_MESSAGE
from networkio_proto.journal import (
    JournalBatch,
    JournalRecord,
    MessageAccepted,
    MessagesKept,
    RestoredRecord,
)
from networkio_proto.spill import JournalLoad

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
        #: what is being loaded
        self.loading: JournalLoad | None = None
        #: how long a sync or a load takes (seconds); ``inf``: until :meth:`finish`
        self.delay = 0.0
        #: so many batches more find no room
        self.full = 0
        #: the next sync fails, and the batch is on disk all the same, or is not; or the next load fails
        self.failing: Literal["kept", "lost"] | None = None
        #: a sync or load failed: this process writes no more
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

    def open(self, resident: int) -> list[RestoredRecord]:
        """A process begins: everything that is whole, oldest first; of messages beyond ``resident`` only the cost."""
        self.stopped = self.torn = False
        left: defaultdict[str, int] = defaultdict(lambda: resident)
        records: list[RestoredRecord] = []
        for record in (record for batch in self.batches for record in batch):
            records.append(record)
            if isinstance(record, MessageAccepted) and not (record.fin or record.skip):
                cost = COST_PER_MESSAGE + len(record.headers) + len(record.payload)
                if left[record.peer_id] <= 0:
                    records[-1] = MessagesKept(record.peer_id, record.sequence, array("Q", [cost]))
                left[record.peer_id] -= cost
        return records

    def lose(self) -> None:
        """The process is no more, and with it what was not synced."""
        if self.writing is not None:
            self.tally["lost"] += 1
        self.writing, self.loading, self.doom, self.failing = None, None, None, None

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
        """Write and load what the core asks for, one batch and one load at a time."""
        if self._serving or self.stopped or not host.up:
            return
        self._serving = True
        try:
            while self._load(host) or self._write_next(host):
                pass
        finally:
            self._serving = False

    def _write_next(self, host: Host) -> bool:
        """A batch; True if another one, or a load, may follow at once."""
        return self.writing is None and self._begin(host) and not self.delay and self._finish_sync(host)

    def _load(self, host: Host) -> bool:
        """A load; True if something may follow at once."""
        if self.loading is not None or self.stopped or not host.up:
            return False
        self.loading = load = host.endpoint.journal_load()
        if load is None:
            return False
        if 0 < self.delay < inf:
            host.call_at(host.world.now + self.delay, partial(self._found, host, load))
        return not self.delay and self._finish_load(host)

    def _found(self, host: Host, load: JournalLoad) -> None:
        if self.loading is load and self._finish_load(host):  # else somebody called finish
            self.serve(host)

    def _finish_load(self, host: Host) -> bool:
        """Messages were read back, or could not be."""
        load, failing = self.loading, self.failing
        if load is None or host.paused:
            return False
        self.loading = self.failing = None
        self.stopped = self.stopped or failing is not None
        self.tally["loaded" if failing is None else "not loaded"] += 1
        error = None if failing is None else OSError(errno.EIO, "input/output error")
        host.endpoint.journal_loaded(load.token, () if error else self._wanted(load), host.now, error)
        host.pump()
        return error is None

    def _wanted(self, load: JournalLoad) -> list[MessageAccepted]:
        """The newest messages under these numbers: before an old copy was restored there may have been others."""
        messages = (record for batch in self.batches for record in batch if isinstance(record, MessageAccepted))
        wanted = {each.sequence: each for each in messages if each.peer_id == load.peer_id}
        return [wanted[sequence] for sequence in range(load.first, load.last + 1) if sequence in wanted]

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
            self._finish_sync(host)

    def finish(self, host: Host) -> bool:
        """Load and sync are over, in one way or another; True if the next may follow at once."""
        loaded = self._finish_load(host)
        return self._finish_sync(host) or loaded

    def _finish_sync(self, host: Host) -> bool:
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
        if error is not None and not self.stopped and not batch.optional:  # else the core sees to that
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
