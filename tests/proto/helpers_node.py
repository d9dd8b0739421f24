"""The smallest driver there is: complete nodes whose network is a few byte arrays, moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from networkio_proto import Close, Config, Dial, Log, Session
from networkio_proto.handles import MessageHandle, ReceiptHandle
from networkio_proto.journal import JournalBatch, JournalRecord, MessageAccepted, Store
from networkio_proto.links import Carried, LinkHandle
from networkio_proto.nodes import NodeHandle
from networkio_proto.peers import PeerHandle
from networkio_proto.spill import JournalLoad
from networkio_testing.node import Flag

__all__ = ["Driver", "Far", "Link", "Net", "Slate", "Stream"]

#: a peer of a Driver
Far = PeerHandle[MessageHandle, ReceiptHandle]


class Stream:
    """One end of a byte stream."""

    def __init__(self, other: Stream | None = None) -> None:
        self.link: Link | None = None
        self.out = bytearray()
        self.other: Stream = Stream(self) if other is None else other


class Link(LinkHandle):
    """Moves bytes between the core and one end of a stream."""

    def __init__(self, node: Driver, connection: Carried, stream: Stream) -> None:
        super().__init__(node, connection)
        self.stream = stream
        stream.link = self
        #: what the core wanted, in order
        self.told: list[str] = []

    def transmit(self) -> None:
        """The core has something to send."""
        self.told.append("transmit")
        self._write()

    def _write(self) -> None:
        while buffers := self.connection.data_to_send(self.node.time):
            self.stream.out += b"".join(buffers)

    def close(self, effect: Close) -> None:
        """The core is done with it."""
        self.told.append("flush" if effect.flush else "drop")
        self.closing = True
        if effect.flush:
            self._write()

    def move(self) -> bool:
        """Let what the other end said arrive, or its end; False if nothing happened."""
        other = self.stream.other
        if other.out:
            data = bytes(other.out)
            other.out.clear()
            with self.node.inside as now:
                self.connection.receive_data(data, now)
            return True
        if self.closing:
            self.drop()
            return True
        return False

    def drop(self) -> None:
        """Its end is gone, and the other one learns of it when everything has arrived."""
        self.stream.link = None
        self.node.unlink(self)


Found: TypeAlias = Callable[[Sequence[MessageAccepted], BaseException | None], None]


class Slate:
    """A store that writes when it is told to: what it was given is ``writing`` until :meth:`finish`."""

    def __init__(self) -> None:
        self.batches: list[JournalBatch] = []
        self.writing: JournalBatch | None = None
        #: what is to be read back, until :meth:`finish_load`
        self.loading: tuple[JournalLoad, Found] | None = None
        self.closed = False
        #: the application's own: what is on disk, and in a transaction that is open
        self.rows: list[object] = []
        self.open_rows: list[object] | None = None
        self.running: tuple[Callable[[Any], object], Callable[[BaseException | None], None]] | None = None

    def open(self, node_id: str, resident: int) -> list[JournalRecord]:
        """What was written."""
        return [record for batch in self.batches for record in batch.records]

    def load(self, load: JournalLoad, done: Found) -> None:
        """Begin to read messages back; :meth:`finish_load` brings them."""
        assert self.loading is None
        self.loading = (load, done)

    def finish_load(self, error: BaseException | None = None) -> JournalLoad:
        """They were read, or could not be."""
        assert self.loading is not None
        (load, done), self.loading = self.loading, None
        records = [record for batch in self.batches for record in batch.records]
        wanted = range(load.first, load.last + 1)
        found = [each for each in records if isinstance(each, MessageAccepted) and each.sequence in wanted]
        done([] if error else [each for each in found if each.peer_id == load.peer_id], error)
        return load

    def write(self, batch: JournalBatch, done: Callable[[BaseException | None], None]) -> None:
        """Begin to write."""
        assert self.writing is None
        self.writing, self._done = batch, done

    def run(self, call: Callable[[Any], object], done: Callable[[BaseException | None], None]) -> None:
        """What the function did to ``rows`` is there when the next batch is; it is called by :meth:`finish_run`."""
        assert self.writing is None
        self.running = (call, done)

    def finish_run(self) -> None:
        """The function is called."""
        assert self.running is not None
        (call, done), self.running = self.running, None
        self.open_rows = list(self.rows)
        try:
            call(self.open_rows)
        except BaseException as error:
            self.open_rows = None
            done(error)
        else:
            done(None)

    def undo(self) -> None:
        """It did nothing."""
        assert self.open_rows is not None
        self.open_rows = None

    def here(self) -> bool:
        """There is but one thread."""
        return False

    def finish(self, error: BaseException | None = None) -> None:
        """It is written, or has failed."""
        assert self.writing is not None
        batch, self.writing = self.writing, None
        if error is None:
            self.batches.append(batch)
            self.rows = self.rows if self.open_rows is None else self.open_rows
        self.open_rows = None
        self._done(error)

    def finish_all(self) -> None:
        """Write until there is nothing to write."""
        while self.writing is not None or self.running is not None:
            if self.running is not None:
                self.finish_run()
            else:
                self.finish()

    def close(self) -> None:
        """Nothing is written any more."""
        self.closed = True


class Driver(NodeHandle[Far]):
    """A node of a Net.  Nothing enters it twice."""

    def __init__(
        self, net: Net, peer_id: str, config: Config | None = None, journal: Store | str | None = None, **options: Any
    ) -> None:
        self.net = net
        self.entered = False
        #: dials that wait to be answered
        self.dials: list[Dial] = []
        self.lines: list[Log] = []
        super().__init__(peer_id, config=config, journal=journal, **options)
        if self.keeper is not None:
            self.restore(self.keeper.open())

    def enter(self) -> float:
        """Before every touch of the core."""
        assert not self.entered
        self.entered = True
        return self.arrive(self.net.now)

    def leave(self) -> None:
        """After it."""
        self.carry_out()
        if self.keeper is not None:
            self.keeper.serve()
        self.entered = False

    def handy(self) -> bool:
        """There is but one thread."""
        return True

    def token(self) -> Flag:
        """Something to wait for."""
        return Flag()

    def make_peer(self, session: Session) -> Far:
        """A peer without a way of waiting."""
        return PeerHandle(self, session, MessageHandle, ReceiptHandle)

    def make_link(self, connection: Carried, stream: Any) -> Link:
        """Begin to carry bytes."""
        assert self.entered
        return Link(self, connection, stream)

    def dial(self, dial: Dial) -> None:
        """Note it; the net answers."""
        assert self.entered
        self.dials.append(dial)

    def abandon(self, dial: Dial) -> None:
        """Forget it, if it is not being answered."""
        assert self.entered
        if dial in self.dials:
            self.dials.remove(dial)

    def log(self, line: Log) -> None:
        """Keep it."""
        assert self.entered
        self.lines.append(line)

    @property
    def links(self) -> list[Link]:
        """Its ends of streams."""
        return list(self._links.values())

    def close(self) -> None:
        """End it."""
        self.enter()
        self.gone()
        self.leave()


class Net:
    """The nodes, and the time, which only :meth:`wait` lets go on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.nodes: dict[str, Driver] = {}

    def node(
        self, peer_id: str, config: Config | None = None, journal: Store | str | None = None, **options: Any
    ) -> Driver:
        """A new node; its id is its address."""
        node = self.nodes[peer_id] = Driver(self, peer_id, config, journal, **options)
        return node

    def connected(self, dialer: Driver, acceptor: Driver) -> tuple[Far, Far]:
        """Connect two nodes: (the acceptor as the dialer sees it, the other way round)."""
        with dialer.inside as now:
            dialer.endpoint.add_target(acceptor.id, now, to=acceptor.id)
        self.run()
        peers = dialer.peer(acceptor.id), acceptor.peer(dialer.id)
        assert [peer.connected for peer in peers] == [True, True]
        return peers

    def run(self) -> None:
        """Answer dials and move bytes until nothing moves."""
        for _ in range(1000):
            moved = False
            for node in self.nodes.values():
                moved |= self._answer(node) | self._move(node)
            if not moved:
                return
        raise AssertionError("it never comes to rest")

    def wait(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        self.now += seconds
        for node in self.nodes.values():
            node.tick()
        self.run()

    def _answer(self, node: Driver) -> bool:
        dials, node.dials = node.dials, []
        for dial in dials:
            acceptor, stream = self.nodes.get(dial.target.key), Stream()
            if acceptor is None:
                node.dialled(dial, None, ConnectionRefusedError("refused"))
            else:
                acceptor.serve_stream(stream.other, source=node.id)
                node.dialled(dial, stream, None)
        return bool(dials)

    def _move(self, node: Driver) -> bool:
        moved = False
        for link in node.links:
            moved = link.move() or moved
            if link.stream.link is not None and link.stream.other.link is None and not link.stream.other.out:
                link.lost(None)
                link.drop()
                moved = True
        return moved
