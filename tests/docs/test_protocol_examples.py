"""The specification's page against itself: its bytes are the generator's, and its rules are numbered."""

from __future__ import annotations

import importlib.util
import re
import struct
from pathlib import Path
from types import ModuleType

import msgpack
import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "protocol.md"
TEXT = PAGE.read_text(encoding="utf-8")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("examples_protocol", ROOT / "docs" / "examples_protocol.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


examples = load()
NOT_FRAMES = ("psk", "payload")


@pytest.mark.parametrize("name", examples.EXAMPLES)
def test_block_stands_in_the_page(name: str) -> None:
    assert f"```text\n{examples.render(name)}```\n" in TEXT


def test_page_has_no_other_block() -> None:
    assert list(examples.blocks_of_page(TEXT)) == list(examples.EXAMPLES)  # in this order, too
    assert examples.update(TEXT) == TEXT


def test_dump_shows_the_bytes() -> None:
    for name, make in examples.EXAMPLES.items():
        if name == "psk":
            continue
        shown = "".join(line[6:53] for line in examples.dump(make()).splitlines())
        assert bytes.fromhex(shown) == examples.raw(make()), name


def frames(data: bytes) -> list[tuple[int, int, bytes]]:
    """A second reading of the bytes, from the specification's *Layout*."""
    if data.startswith(examples.PREAMBLE):
        data = data[8:]
    found = []
    while data:
        length, kind, flags = struct.unpack_from(">IBB", data)
        assert 2 <= length <= len(data) - 4
        found.append((kind, flags, data[6 : 4 + length]))
        data = data[4 + length :]
    return found


def test_frames_are_well_formed() -> None:
    for name, make in examples.EXAMPLES.items():
        if name in NOT_FRAMES:
            continue
        for kind, _, body in frames(examples.raw(make())):
            if kind in (examples.HELLO, examples.HELLO_ACK, examples.ATTACH):
                mapping = msgpack.unpackb(body, raw=False)
                assert msgpack.packb(mapping) == body, name  # the shortest encoding, nothing after it
                assert len(body) <= 4094
                if kind == examples.ATTACH:
                    assert list(mapping)[-1] == "mac"
                    assert ("generation" in mapping) != ("seen" in mapping)


def test_psk_vector_ends_in_the_mac() -> None:
    values = examples.psk_handshake()
    for side in "DA":
        assert values[f"ATTACH_{side}, mac zeroed"].endswith(b"\xa3mac\xc4\x20" + bytes(32))
        assert len(values[f"mac_{side}"]) == 32


def test_rules_are_numbered_in_order() -> None:
    seen: dict[str, int] = {}
    for group, number in re.findall(r"^\* \*\*P-([A-Z]+)-(\d+)\*\* ", TEXT, re.MULTILINE):
        seen[group] = seen.get(group, 0) + 1
        assert int(number) == seen[group], f"P-{group}-{number}"
    assert sum(seen.values()) > 150
    for group, number in re.findall(r"P-([A-Z]+)-(\d+)", TEXT):
        assert 1 <= int(number) <= seen.get(group, 0), f"P-{group}-{number} is mentioned and does not exist"


def test_binding_words_stand_in_rules_only() -> None:
    """MUST, SHOULD and MAY outside a numbered rule would bind nobody, or bind without a name."""
    prose = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    for block in re.split(r"\n(?=\* |\n)", prose):
        if block.lstrip().startswith("The key words"):
            continue
        if re.search(r"\b(MUST|SHOULD|MAY)\b", block):
            assert re.match(r"\s*\* \*\*P-[A-Z]+-\d+\*\* ", block), block
            sentences = re.split(r"(?<=[.:;]) (?=[A-Z`(])", " ".join(block.split()))
            binding = [sentence for sentence in sentences if re.search(r"\b(MUST|SHOULD|MAY)\b", sentence)]
            assert len(binding) == 1, f"several rules under one number: {binding}"


def test_every_frame_type_has_an_example() -> None:
    shown = {
        kind
        for name, make in examples.EXAMPLES.items()
        if name not in NOT_FRAMES
        for kind, _, _ in frames(examples.raw(make()))
    }
    assert shown >= set(examples.NAMES)
