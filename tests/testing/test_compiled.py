"""tools/compiled: the copy is made of the sources as they are today.  Compiling it takes minutes, and is not tried."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_mypyc_asks_for_is_put_into_a_copy(tmp_path: Path) -> None:
    loader = SourceFileLoader("compiled", str(ROOT / "tools" / "compiled"))
    spec = spec_from_loader("compiled", loader)
    assert spec is not None
    tool = module_from_spec(spec)
    loader.exec_module(tool)
    modules = tool.copy(tmp_path)
    texts = {name: (tmp_path / name).read_text() for name in modules}
    assert "@mypyc_attr(native_class=False)\nclass Violation(" in texts["networkio_testing/judges.py"]
    assert texts["networkio_testing/world.py"].count("import mypyc_attr") == 1
    assert not [name for name, text in texts.items() if "slots=True" in text]
    for name, text in texts.items():
        compile(text, name, "exec")
