"""The drawing of a cut and a resume is of a real run, the same each time, and shows what its page says."""

from __future__ import annotations

import importlib.util
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("drawing_resume", ROOT / "docs" / "drawing_resume.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


drawing = load()


def test_it_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = (drawing.write(tmp_path / name) for name in "ab")
    assert [path.name for path in first] == ["resume-light.svg", "resume-dark.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_it_shows_what_the_topic_on_design_says() -> None:
    rows = drawing.record().rows
    (cut,) = [place for place, row in enumerate(rows) if isinstance(row, drawing.Break)]
    frames = [(place, row) for place, row in enumerate(rows) if isinstance(row, drawing.Frame)]
    before = [row.label for place, row in frames if place < cut and row.arrived]
    lost = [row.label for _, row in frames if not row.arrived]
    after = [row.label for place, row in frames if place > cut]
    assert [label for label in before if label.startswith("DATA")] == ["DATA 1 “one”", "DATA 2 “two”"]
    assert lost == ["DATA 3 “three”", "ACK: received 2, read 1"]
    assert "ATTACH: I have nothing for you; received 2, read 1" in after
    assert [label for label in after if label.startswith("DATA")] == ["DATA 3 “three”", "DATA 4 “four”"]
    assert after[-1] == "ACK: received 4, read 4"


def test_it_is_svg_in_which_no_text_leaves_the_page() -> None:
    rows = drawing.record().rows
    for palette in (drawing.LIGHT, drawing.DARK):
        root = ET.fromstring(drawing.draw(rows, palette))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        texts = root.findall("{http://www.w3.org/2000/svg}text")
        assert len(texts) == len(rows) + 2  # and the two names
        for text in texts:
            width = 8 * len(text.text or "")  # a wide font at 14 pixels
            x = float(text.attrib["x"])
            left = {"start": x, "middle": x - width / 2, "end": x - width}[text.attrib["text-anchor"]]
            assert left >= 0
            assert left + width <= drawing.WIDTH
