"""Every Python block of README and of the documentation runs, or says why not."""

from __future__ import annotations

import contextlib
import io
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from tests.docs import fragments
from tests.docs.blocks import ENVIRONMENT, ROOT, Block, blocks_of, free_port, pages

ALL = [block for page in pages() for block in blocks_of(page)]
RUN = [block for block in ALL if not block.excuse and not block.test]
PAIRS = [(one, ALL[place + 1]) for place, one in enumerate(ALL) if one.with_next]
PAIRED = [block for pair in PAIRS for block in pair]
FRAGMENTS = [block for block in RUN if not block.program and block not in PAIRED]
PROGRAMS = [block for block in RUN if block.program and block not in PAIRED]

#: what is not run: a foreign library's half of a porting page, a toolkit that needs a display
EXCUSES = ("only checked to be Python: it needs ", "needs a display")


def test_there_is_something_to_run() -> None:
    assert len(FRAGMENTS) > 20
    assert len(PROGRAMS) > 5
    assert len(PAIRS) > 3


@pytest.mark.parametrize("block", ALL, ids=str)
def test_block_is_python_and_run_or_excused(block: Block) -> None:
    block.check()
    if block.excuse:
        assert block.excuse.startswith(EXCUSES)
    elif block.test:
        text = (ROOT / block.test).read_text(encoding="utf-8")
        assert f'"{block.page.removeprefix("docs/")}"' in text
    else:
        assert block.marker in ("", "run with the next"), "an unknown marker"
        assert block in FRAGMENTS or block in PROGRAMS or block in PAIRED


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_block_of_the_page_escapes(page: Path) -> None:
    """Python is fenced as ``python`` and in no other way, and every such fence is found."""
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"^ *(?:```|~~~|:::)[ {]*(?:py|python3|pycon|code-block|code|doctest)\b", text, re.MULTILINE)
    assert len(re.findall(r"^ *```python$", text, re.MULTILINE)) == len(blocks_of(page))


def test_excuses_are_few() -> None:
    excused = [block for block in ALL if block.excuse]
    assert len(excused) <= 10, list(map(str, excused))


@pytest.mark.parametrize("block", FRAGMENTS, ids=str)
def test_fragment(block: Block) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        if block.top_level_await or "async " in block.code:
            anyio.run(fragments.run_asyncio, block.code, str(block))
            derived = fragments.without_await(block.code)
            if derived is not None:
                fragments.run_threads(derived, f"{block}, without await")
        else:
            fragments.run_threads(block.code, str(block))


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_program(block: Block, tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, _file(tmp_path, block, free_port())],
        capture_output=True, text=True, timeout=30, env=ENVIRONMENT, stdin=subprocess.DEVNULL, check=False,
        cwd=tmp_path,
    )
    assert (process.returncode, process.stderr) == (0, "")
    if block.prints is not None:
        assert process.stdout == block.prints


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: str(pair[0]))
def test_pair(pair: tuple[Block, Block], tmp_path: Path) -> None:
    """The second program ends by itself; the first is then stopped as people stop it."""
    port = free_port()
    first, second = (_file(tmp_path, block, port) for block in pair)
    with subprocess.Popen(
        [sys.executable, first], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
    ) as partner:
        try:
            _wait_for_listener(port)
            process = subprocess.run(
                [sys.executable, second],
                capture_output=True, text=True, timeout=30, env=ENVIRONMENT, stdin=subprocess.DEVNULL, check=False,
            )
            assert (process.returncode, process.stderr) == (0, "")
            partner.send_signal(signal.SIGINT)
            output, complaint = partner.communicate(timeout=20)
        finally:
            partner.kill()
    assert not complaint or complaint.strip().splitlines()[-1].endswith("KeyboardInterrupt"), complaint
    for block, printed in zip(pair, (output, process.stdout), strict=True):
        if block.prints is not None:
            assert printed == block.prints


def _wait_for_listener(port: int) -> None:
    """Until somebody listens; a stranger that hangs up at once disturbs nobody."""
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < until, "nobody listens"


def _file(directory: Path, block: Block, port: int) -> str:
    """The block as its reader would save it."""
    path = directory / f"line_{block.line}.py"
    path.write_text(block.code.replace("8080", str(port)), encoding="utf-8")
    return str(path)
