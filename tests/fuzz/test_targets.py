"""The fuzz targets without a fuzzer: over the kept corpus, over what hypothesis thinks of, and over what was found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from networkio_proto.frames import FrameDecoder
from tests.fuzz import run
from tests.fuzz.make_corpus import examples, made
from tests.fuzz.profiles import property_of_bytes
from tests.fuzz.reader import mended
from tests.fuzz.targets import CORPUS, TARGETS, seeds

#: how many examples of hypothesis a target gets; a slow one fewer
EXAMPLES = {"acceptor": 60, "dialer": 60, "stream": 60, "live": 60, "psk": 60}


@pytest.mark.parametrize("name", TARGETS)
def test_every_kept_input_still_passes(name: str) -> None:
    for seed in seeds(name):
        TARGETS[name](seed.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_pass(name: str) -> None:
    kept = [seed.read_bytes() for seed in seeds(name)]

    @property_of_bytes(EXAMPLES.get(name, 200))
    @given(
        data=st.binary(max_size=200),
        seed=st.sampled_from(kept),
        changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
        random=st.booleans(),
    )
    def target(data: bytes, seed: bytes, changes: list[tuple[int, int]], random: bool) -> None:
        changed = bytearray(data if random else seed)
        for place, value in changes:
            changed[place : place + 1] = bytes([value])
        TARGETS[name](bytes(changed))

    target()


def test_the_corpus_is_what_the_script_makes_and_what_was_found() -> None:
    for name in TARGETS:
        kept = {seed.read_bytes() for seed in seeds(name)}
        assert kept >= set(made(name))
    assert {entry.name for entry in CORPUS.iterdir()} == set(TARGETS) == set(run.NAMES)
    assert len(examples()) >= 20


def test_a_mended_stream_is_whole_frames() -> None:
    assert mended(b"\0\0\0\x40\x10\x00abc" + b"\0" * 3, 64) == b"\0\0\0\x08\x10\x00abc\0\0\0"
    assert mended(b"\0\0\0\x02\x10\x00\0\0\0\x03\x11\x00", 64) == b"\0\0\0\x02\x10\x00\0\0\0\x02\x11\x00"
    assert mended(b"short", 64) == b""


def test_what_a_target_finds_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrameDecoder, "clear", lambda self: None)
    with pytest.raises(AssertionError):
        TARGETS["frames"](b"\x00\x00\x00\x00\x00")


def test_one_input_is_run_again_by_one_command(tmp_path: Path) -> None:
    [seed, *_] = seeds("maps")
    command = [sys.executable, "-m", "tests.fuzz.run", "maps", str(seed)]
    again = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CORPUS.parents[2])
    assert (again.returncode, again.stderr) == (0, "")
    assert "nothing wrong" in again.stdout
