"""The core is pure: it imports no clock, socket, thread or loop, does no I/O, and repeats itself bit for bit.

What can be proved is proved: by reading the sources, which names are imported and called; by a fresh interpreter, that
importing the core loads nothing beside what those imports load by themselves; and by running the same story in two
processes that hash differently, that the output depends on nothing but the input.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

import networkio_proto
from networkio_proto import Config, Delivery, Effect, Event
from networkio_testing.world import Host, Watcher, Wire, World

ROOT = Path(__file__).parents[2]
PACKAGE = Path(networkio_proto.__file__).parent
MODULES = sorted(PACKAGE.glob("*.py"))

#: clocks, randomness, I/O, threads, loops; and what would reach them by a detour
FORBIDDEN = {
    "time", "random", "os", "socket", "ssl", "secrets", "threading", "asyncio", "anyio", "select", "sqlite3",
    "_thread", "concurrent", "contextvars", "ctypes", "importlib", "io", "logging", "mmap", "multiprocessing",
    "pathlib", "pickle", "platform", "queue", "sched", "selectors", "shutil", "signal", "subprocess", "sys", "tempfile",
    "weakref",
}  # fmt: skip

#: the shipped default source of randomness, and memory that is called io
EXCEPTIONS = {"randomness.py": {"random"}, "memory.py": {"io"}}

IMPURE_FUNCTIONS = {"open", "print", "input", "eval", "exec", "compile", "__import__", "breakpoint"}
#: on datetime, date and uuid: they ask a clock, the time zone of the machine, or its generator
IMPURE_METHODS = {"now", "utcnow", "today", "fromtimestamp", "astimezone", "uuid1", "uuid4", "getnode"}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> Iterator[str]:
    """The absolute names that a module imports anywhere in it, in functions and for type checkers too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module is not None
            yield node.module


def used(path: Path) -> tuple[set[str], set[str]]:
    """The plain names that a module uses, and the names of the methods that it calls."""
    nodes = list(ast.walk(tree(path)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    calls = {node.func for node in nodes if isinstance(node, ast.Call)}
    return names, {func.attr for func in calls if isinstance(func, ast.Attribute)}


# -- by reading -------------------------------------------------------------------------------------------------------


def test_these_tests_see_the_whole_package() -> None:
    assert {path.name for path in MODULES} >= {"__init__.py", "connection.py", "endpoint.py", "session.py"}
    assert [path for path in PACKAGE.rglob("*.py") if path not in MODULES] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_imports_a_clock_a_socket_a_thread_or_a_loop(path: Path) -> None:
    tops = {name.partition(".")[0] for name in imported(path)}
    assert tops & FORBIDDEN == EXCEPTIONS.get(path.name, set())


def test_of_io_only_memory_is_used() -> None:
    froms = [node for node in ast.walk(tree(PACKAGE / "memory.py")) if isinstance(node, ast.ImportFrom)]
    assert [alias.name for node in froms if node.module == "io" for alias in node.names] == ["BytesIO"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_imports_anything_but_the_standard_library_msgpack_and_its_siblings(path: Path) -> None:
    tops = {name.partition(".")[0] for name in imported(path)}
    assert tops - set(sys.stdlib_module_names) <= {"msgpack"}
    levels = {node.level for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom)}
    assert levels <= {0, 1}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_reads_writes_or_asks_what_time_it_is(path: Path) -> None:
    names, methods = used(path)
    assert names & IMPURE_FUNCTIONS == set()
    assert methods & IMPURE_METHODS == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time", {"time"}),
        ("def f():\n    from os.path import join", {"os"}),
        ("if TYPE_CHECKING:\n    import asyncio.events as e, json", {"asyncio", "json"}),
        ("from . import session\nfrom .errors import *", set()),
    ],
)
def test_an_import_is_found_wherever_it_hides(source: str, found: set[str], tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(source)
    assert {name.partition(".")[0] for name in imported(path)} == found


# -- in a fresh interpreter -------------------------------------------------------------------------------------------


def run(code: str, **environment: str) -> str:
    """The output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOADED = """
import importlib, json, sys
bare = set(sys.modules)
for name in {needed}:
    importlib.import_module(name)
before = set(sys.modules)
for name in {core}:
    importlib.import_module(name)
print(json.dumps([sorted(before - bare), sorted(set(sys.modules) - before)]))
"""


@cache
def loaded() -> tuple[list[str], list[str]]:
    """What the core's outside imports load by themselves, and what the core then loads beside."""
    needed = sorted({name for path in MODULES for name in imported(path)})
    core = ["networkio_proto", *(f"networkio_proto.{path.stem}" for path in MODULES if path.stem != "__init__")]
    by_itself, beside = json.loads(run(LOADED.format(needed=needed, core=core)))
    return by_itself, beside


def test_importing_the_core_loads_the_core_and_nothing_else() -> None:
    _, beside = loaded()
    assert "networkio_proto.session" in beside
    assert [name for name in beside if name.partition(".")[0] != "networkio_proto"] == []


def test_nor_do_its_imports_load_a_loop_or_a_socket() -> None:
    by_itself, _ = loaded()
    assert "msgpack" in by_itself
    unwanted = {"asyncio", "anyio", "socket", "_socket", "ssl", "_ssl", "select", "selectors", "sqlite3", "subprocess"}
    assert unwanted & set(by_itself) == set()


# -- the same again ---------------------------------------------------------------------------------------------------


class Recorder(Watcher):
    """Everything that the cores of a world say: bytes, effects, notices, messages."""

    def __init__(self) -> None:
        self.said = hashlib.sha256()
        self.bytes = 0

    def note(self, *things: object) -> None:
        self.said.update(repr(things).encode())

    def wrote(self, wire: Wire, end: int, buffers: Sequence[bytes | memoryview]) -> None:
        data = b"".join(buffers)
        self.bytes += len(data)
        self.note(wire.number, end, wire.world.now, data)

    def effect(self, host: Host, effect: Effect) -> None:
        self.note(host.name, type(effect).__name__)

    def noticed(self, host: Host, notice: Event) -> None:
        self.note(host.name, notice)

    def handed_over(self, host: Host, peer: str, deliveries: Sequence[Delivery]) -> None:
        self.note(host.name, peer, [delivery[2] for delivery in deliveries])


def story(seed: int, steps: int = 300) -> str:
    """Five nodes in bad weather; returns a digest of all that they said."""
    world, recorder, luck = World(seed), Recorder(), random.Random(seed)
    world.watchers.append(recorder)
    names = [f"node-{letter}" for letter in "abcde"]
    hosts = [world.host(name, Config(outbox_limit=5000)) for name in names]
    for dialer, acceptor in [(0, 1), (1, 0), (0, 2), (3, 0), (4, 0), (2, 4), (1, 3)]:
        hosts[dialer].dial(names[acceptor])
    for _ in range(steps):
        host, peer = luck.sample(hosts, 2)
        match luck.randrange(10):
            case 0 | 1 | 2:
                if host.session(peer.name).can_send:
                    payloads = [luck.randbytes(luck.randrange(40)) for _ in range(3)]
                    host.send(peer.name, *payloads, ttl=luck.choice([None, 2.0]))
            case 3 | 4:
                host.read(peer.name, luck.randrange(1, 4))
            case 5:
                for delivery in host.take(peer.name, 2):
                    host.settle(peer.name, delivery, luck.choice([None, (7, "no")]))
            case 6 if luck.random() < 0.2:
                host.restart()
                for other in names:
                    if other != host.name:
                        host.dial(other)
            case 7 if world.open_wires():
                luck.choice(world.open_wires()).cut(luck.choice(["rst", "fin"]))
            case _:
                world.run(luck.random() * 2)
    world.run(60.0)
    for host in hosts:
        recorder.note(host.name, [host.read(name) for name in names if name != host.name])
    assert recorder.bytes > 10_000
    return recorder.said.hexdigest()


@pytest.mark.slow
def test_the_same_seed_and_inputs_give_the_same_bytes_also_where_python_hashes_otherwise() -> None:
    told = {story(7)}
    for seed in ("0", "1", "4242"):
        told.add(run("from tests.proto.test_purity import story; print(story(7))", PYTHONHASHSEED=seed).strip())
    assert len(told) == 1


def test_another_seed_gives_other_bytes() -> None:
    assert story(7) == story(7) != story(8)
