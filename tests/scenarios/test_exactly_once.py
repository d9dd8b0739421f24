"""Effects exactly once, at random: two nodes with journals whose processes die wherever they are, and lose no row.

"a" writes a row and sends its number in one transaction; "b" takes the message, writes a row and acknowledges in one
transaction, in turn or not.  Disks are slow, full, or have written a batch that nobody was told of when the process
dies; connections break.  At the end b has a row for each one that a has, and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import Any

import pytest

from networkio_proto import Config, JournalFull
from networkio_proto.handles import MessageHandle
from tests.proto.helpers import Waiting
from tests.proto.helpers_node import Net, Slate
from tests.scenarios.helpers import drop_rule


class Shop:
    """The two, and what a random player does to them."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.net = Net()
        self.slates = {"a": Slate(), "b": Slate()}
        self.held: list[MessageHandle] = []
        self.waiting: list[Waiting[Any]] = []
        self.sent = 0
        for name in "ab":
            self.boot(name)

    def boot(self, name: str) -> None:
        self.net.node(name, Config(ended_retention=60.0), journal=self.slates[name])
        if name == "a":
            with self.net.nodes["a"].inside as now:
                self.net.nodes["a"].endpoint.add_target("b", now, to="b")

    # -- what the applications do ---------------------------------------------------------------------------------

    def send(self) -> None:
        self.sent += 1
        number, node = self.sent, self.net.nodes["a"]

        def sell(rows: list[object], send: Any) -> None:
            rows.append(number)
            send("b", number)

        self.waiting.append(Waiting(node, node._transacting(sell, ())))

    def take(self) -> None:
        message = self.net.nodes["b"].peer("a").receive_nowait(None)
        if message is not None:
            self.held.append(message)

    def settle(self) -> None:
        """One of those in hand, or some of them together."""
        self.chance.shuffle(self.held)
        some = [self.held.pop() for _ in range(min(len(self.held), self.chance.choice([1, 1, 1, 3])))]
        node, numbers = self.net.nodes["b"], [message.data for message in some]
        self.waiting.append(Waiting(node, node._committing(some, lambda rows: rows.extend(numbers))))
        self.waiting.append(Waiting(node, self._keep(some, self.waiting[-1])))

    def _keep(self, some: list[MessageHandle], committing: Waiting[Any]) -> Any:
        """What could not be committed is in hand again."""
        while not committing.look().over:
            yield committing.flag
        self.held += [message for message in some if message.held]

    # -- what happens to them --------------------------------------------------------------------------------------

    def write(self, name: str) -> None:
        slate = self.slates[name]
        if slate.running is not None:
            slate.finish_run()
        elif slate.writing is not None:
            slate.finish(JournalFull("no room") if self.chance.random() < 0.1 else None)

    def die(self, name: str) -> None:
        """Half of the time what was being written is on the disk all the same."""
        slate, node = self.slates[name], self.net.nodes[name]
        if slate.writing is not None and self.chance.random() < 0.5:
            slate.batches.append(slate.writing)
            slate.rows = slate.rows if slate.open_rows is None else slate.open_rows
        slate.writing = slate.running = slate.open_rows = None
        for link in node.links:
            link.stream.link = None
            link.stream.out.clear()
        node.post = lambda call: None  # it is gone
        if name == "b":
            self.held.clear()
        self.waiting = [each for each in self.waiting if each.node is not node]
        self.boot(name)

    def cut(self) -> None:
        for name in "ab":
            for link in self.net.nodes[name].links:
                link.stream.out.clear()
                link.lost(None)
                link.drop()

    def play(self, moves: int) -> None:
        for _ in range(moves):
            name = self.chance.choice("ab")
            possible: list[Callable[[], None]] = [
                self.send, self.take, self.settle, self.net.run, self.cut, partial(self.write, name),
                partial(self.die, name), self.wait,
            ]  # fmt: skip
            self.chance.choices(possible, [6, 6, 6, 6, 1, 12, 1, 3])[0]()
            self.look()

    def wait(self) -> None:
        self.net.wait(self.chance.choice([0.1, 1.0, 30.0]))

    def look(self) -> None:
        for each in list(self.waiting):
            each.look()
        self.waiting = [each for each in self.waiting if not each.over]

    def heal(self) -> None:
        """The disks work, and everything is taken and settled."""
        for _ in range(200):
            self.net.wait(1.0)
            for slate in self.slates.values():
                slate.finish_all()
            self.look()
            self.take()
            if self.held:
                self.settle()


def play(seed: int) -> None:
    shop = Shop(seed)
    shop.play(150)
    shop.heal()
    here, there = shop.slates["a"].rows, shop.slates["b"].rows
    assert sorted(map(str, here)) == sorted(map(str, there)), seed
    assert len(set(map(str, here))) == len(here), seed
    assert shop.net.nodes["a"].peer("b").unacknowledged == 0, seed


@pytest.mark.parametrize("seed", range(10))
def test_every_row_that_was_sent_is_there_once(seed: int) -> None:
    play(seed)


def play_many(seeds: Iterable[int]) -> None:
    for seed in seeds:
        play(seed)


@pytest.mark.slow
def test_every_row_of_many_games_is_there_once() -> None:
    play_many(range(10, 200))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "rule", "without"),
    [
        ("inbox", "        if self.committing:\n", "        if False:\n"),
        ("journal", "    inbox.ahead = Ranges(record.settled)\n", "    inbox.ahead = Ranges()\n"),
        ("keeper", "            self._store.run(self._transaction.call, self._ran)\n",
         "            self._store.run(self._transaction.call, self._ran)\n            self._transaction.done(0.0)\n"),
    ],
)  # fmt: skip
def test_such_games_notice_a_core_that_does_not_do_it_together(
    monkeypatch: pytest.MonkeyPatch, module: str, rule: str, without: str
) -> None:
    drop_rule(monkeypatch, [(module, rule, without)])
    with pytest.raises(Exception):  # noqa: B017, PT011 (a row too many, one that is missing, or it breaks)
        play_many(range(60))
