"""Sphinx configuration; `make docs` builds with warnings as errors."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_project = tomllib.loads((_HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "networkio"
author = "The networkio authors"
copyright = "2026, The networkio authors"
release = _project["version"]
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "_generated"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_type_aliases = {"Event": "Event"}
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries = False

html_theme = "furo"
html_title = f"networkio {release}"


#: what the type variables of the shared handles stand for in each adapter
_OWN = {"P": "Peer", "M": "Message", "R": "Receipt"}


def _name_own_types(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    adapter = name.partition(".")[0]

    def named(text: str | None) -> str | None:
        if not text:
            return text
        text = text.replace("<object object>", "...").replace("TypeAliasForwardRef('Event')", "~networkio_proto.Event")
        return re.sub(r"~?networkio_proto\.\w+\.([PMR])\b", lambda found: f"~{adapter}.{_OWN[found[1]]}", text)

    return named(signature), named(returns)


def setup(app: Any) -> None:
    """The drawing is made anew by every build, from a run that happens then."""
    app.connect("autodoc-process-signature", _name_own_types)
    sys.path.insert(0, str(_HERE))
    import drawing_resume

    drawing_resume.write(_HERE / "_generated")
