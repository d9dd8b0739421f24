"""The pytest plugin in a directory of its own: it is found, it checks, it costs nothing where it is not used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: a file of tests as a user writes it, and what becomes of each
TESTS = '''
import anyio
import pytest

def echo(message):
    message.reply(message.data)

def test_core(networkio_world):
    client, server = networkio_world.node("client"), networkio_world.node("server")
    server.serve(echo)
    peer = client.connect("server", "server")
    networkio_world.partition(client)
    networkio_world.run(3600)
    networkio_world.heal()
    assert peer.request(1) == 1

def test_asyncio(networkio_virtual):
    async def main():
        async with networkio_virtual.node("server") as server, networkio_virtual.node("client") as client:
            peer = await networkio_virtual.connect(client, "server")
            receipt = await peer.send(1)
            networkio_virtual.cut()
            await anyio.sleep(3600)
            assert await server.peer("client").read() == 1
            await receipt.read()
    networkio_virtual.run(main)

@pytest.fixture
def anyio_backend():
    from networkio_testing import VirtualLoop
    return "asyncio", {"loop_factory": VirtualLoop}

@pytest.mark.anyio
async def test_under_anyio(networkio_virtual):
    before = anyio.current_time()
    async with networkio_virtual.node("server") as server, networkio_virtual.node("client") as client:
        peer = await networkio_virtual.connect(client, "server")
        await peer.send(1)
        await anyio.sleep(3600)
        assert await server.peer("client").read() == 1
    assert anyio.current_time() - before < 3700

@pytest.mark.parametrize("networkio_seed", [1, 2])
def test_seeds(networkio_seed, networkio_world, networkio_virtual):
    assert networkio_world.seed == networkio_virtual.seed == networkio_seed

def test_leaves_a_message(networkio_world):
    client, server = networkio_world.node("client"), networkio_world.node("server")
    client.connect("server", "server").send(1)

def test_leaves_a_message_on_purpose(networkio_world):
    networkio_world.strict = False
    client, server = networkio_world.node("client"), networkio_world.node("server")
    client.connect("server", "server").send(1)

@pytest.mark.anyio
async def test_leaves_a_message_under_anyio(networkio_virtual):
    async with networkio_virtual.node("server"), networkio_virtual.node("client") as client:
        await (await networkio_virtual.connect(client, "server")).send(1)

def test_fails_and_says_it_once(networkio_world):
    client, server = networkio_world.node("client"), networkio_world.node("server")
    client.connect("server", "server").send(1)
    assert server.peer("client").read() == 2
    raise AssertionError

@pytest.mark.parametrize("leave", [pytest.skip, pytest.xfail])
def test_is_left_early(networkio_world, networkio_virtual, leave):
    client, server = networkio_world.node("client"), networkio_world.node("server")
    client.connect("server", "server").send(1)
    leave("half-way")

def test_hangs(networkio_world):
    networkio_world.node("client").peer("nobody").receive()
'''


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
    return tmp_path


def run(directory: Path, *arguments: str) -> str:
    """A pytest of its own there: what it printed (no line is shortened)."""
    quick = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    command = [sys.executable, "-m", "pytest", "-W", "error", *quick, *arguments]
    wide = os.environ | {"COLUMNS": "300"}
    result = subprocess.run(command, cwd=directory, env=wide, capture_output=True, text=True, timeout=60, check=False)
    return result.stdout + result.stderr


def test_fixtures_work_where_networkio_is_installed(directory: Path) -> None:
    (directory / "test_it.py").write_text(TESTS)
    said = run(directory, "-rA")
    for name in ("core", "asyncio", "under_anyio", "seeds[1]", "seeds[2]", "leaves_a_message_on_purpose"):
        assert f"PASSED test_it.py::test_{name}\n" in said, said
    assert "ERROR test_it.py::test_leaves_a_message - " in said
    assert "ERROR test_it.py::test_leaves_a_message_under_anyio - " in said
    assert "server did not take 1 message of client" in said
    assert "ERROR test_it.py::test_fails" not in said
    assert "FAILED test_it.py::test_hangs - networkio_testing.node.Stuck: what client" in said
    assert "= 2 failed, 8 passed, 1 skipped, 1 xfailed, 2 errors in " in said


def test_runs_that_do_not_use_it_load_nothing_of_networkio(directory: Path) -> None:
    (directory / "test_it.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    assert 'networkio_pytest' in sys.modules\n"
        "    others = ('networkio_', 'anyio._backends', 'msgpack', 'asyncio')\n"
        "    assert not [name for name in sys.modules if name.startswith(others) and name != 'networkio_pytest']\n"
    )
    assert "1 passed" in run(directory, "-p", "no:anyio")


def test_it_can_be_left_out(directory: Path) -> None:
    (directory / "test_it.py").write_text("def test_it(networkio_world): pass\n")
    assert "fixture 'networkio_world' not found" in run(directory, "-p", "no:networkio", "-p", "no:anyio")
