"""The tutorial, played as it is printed: its programs are processes, its Enter is a line on their input."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.docs.blocks import ENVIRONMENT, ROOT, blocks_of, free_port

PAGE = "tutorial.md"
BLOCKS = [block for block in blocks_of(ROOT / "docs" / "tutorial.md") if block.test]
FLAVOURS = ("blocking", "asyncio")

DESK, SENSOR = dict(zip(FLAVOURS, BLOCKS[0:2], strict=True)), dict(zip(FLAVOURS, BLOCKS[2:4], strict=True))
CABLE, WAITING_SENSOR = BLOCKS[4], BLOCKS[5]


class Terminal:
    """A program and what it prints, line by line; prompts are taken off."""

    PROMPTS = ("> ", "plugged in; Enter pulls the cable ", "pulled; Enter plugs it in ")

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def type(self, *lines: str) -> None:
        """Lines, with Enter after each."""
        assert self.process.stdin is not None
        for line in lines:
            self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def expect(self, *lines: str, again: str = "") -> None:
        """It prints these next, and nothing else; but ``again`` may come before them."""
        for expected in lines:
            line = self._line()
            assert (self._line() if line == again else line) == expected

    def _line(self) -> str:
        line = self._lines.get(timeout=30)
        while prompt := next((each for each in self.PROMPTS if line.startswith(each)), ""):
            line = line.removeprefix(prompt)
        return line

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        self.reader.join(20)


@contextmanager
def running(path: Path, code: str) -> Iterator[Terminal]:
    path.write_text(code, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, path.name], cwd=path.parent, env=ENVIRONMENT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:
        terminal = Terminal(process)
        try:
            yield terminal
        finally:
            process.kill()
            terminal.reader.join(20)


@pytest.fixture(scope="module", autouse=True)
def leaving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Terminal, str]]:
    """Step 8: a sensor that leaves with its last word unread.  It takes five seconds, while the other tests run."""
    port = str(free_port())
    directory = tmp_path_factory.mktemp("leaving")
    with running(directory / "sensor.py", SENSOR["blocking"].code.replace("8080", port)) as sensor:
        sensor.type("gone", "")
        yield sensor, port


def test_programs_are_six_lines_and_the_frame_of_asyncio() -> None:
    for program in (DESK, SENSOR):
        assert len(program["blocking"].code.splitlines()) == 6
        assert len(program["asyncio"].code.splitlines()) == 10  # with the import, the main, and the run of asyncio


@pytest.mark.slow
@pytest.mark.parametrize(("desk_s", "sensor_s"), [("blocking", "asyncio"), ("asyncio", "blocking")])
def test_every_step(desk_s: str, sensor_s: str, tmp_path: Path) -> None:
    port, port_of_cable = str(free_port()), str(free_port())

    def printed(code: str) -> str:
        return code.replace("8080", port).replace("8081", port_of_cable)

    desk_program, sensor_program = printed(DESK[desk_s].code), printed(SENSOR[sensor_s].code)
    with ExitStack() as stack:
        def start(name: str, code: str) -> Terminal:
            return stack.enter_context(running(tmp_path / name, code))

        desk = start("desk.py", desk_program)
        sensor = start("sensor.py", sensor_program)
        sensor.type("one", "two")
        desk.expect("one", "two")

        desk.interrupt()  # step 4
        sensor.type("three", "four")
        desk = start("desk.py", desk_program)
        desk.expect("three", "four", again="two")  # Ctrl-C was quicker than the loop: it was printed, not read

        cable = start("cable.py", printed(CABLE.code))  # step 5
        sensor.type("")
        assert sensor.process.wait(20) == 0
        sensor = start("sensor.py", sensor_program.replace(port, port_of_cable))
        sensor.type("five")
        desk.expect("five")

        for word in ("six",):  # step 6
            cable.type("")
            cable.expect("connections cut: 1")
            sensor.type(word)
            cable.type("")
            desk.expect(word)
        sensor.type("")
        assert sensor.process.wait(20) == 0

        sensor = start("sensor.py", printed(WAITING_SENSOR.code))  # step 7
        sensor.type("nine")
        desk.expect("nine")
        sensor.expect("read by desk")
        cable.type("")
        cable.expect("connections cut: 1")
        sensor.type("ten")
        cable.type("")
        desk.expect("ten")
        sensor.expect("read by desk")


@pytest.mark.slow
def test_what_step_8_says_is_lost_is_lost(leaving: tuple[Terminal, str], tmp_path: Path) -> None:
    gone, port = leaving
    assert gone.process.wait(20) == 0
    with (
        running(tmp_path / "desk.py", DESK["blocking"].code.replace("8080", port)) as desk,
        running(tmp_path / "sensor.py", SENSOR["blocking"].code.replace("8080", port)) as sensor,
    ):
        sensor.type("there")
        desk.expect("there")
