"""What the figures were measured on, and with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.peers import program

__all__ = ["machine", "program_version"]


def machine() -> dict[str, Any]:
    """This machine, now.  ``load`` is what the last minute was like: from the number of cores up, figures are noise."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "load": round(os.getloadavg()[0], 1),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:  # not Linux
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def program_version(name: str) -> str:
    """What a server says that it is."""
    path = program(name)
    if path is None:
        return "not installed"
    for option in ("--version", "-h"):  # mosquitto has the latter only
        done = subprocess.run([path, option], capture_output=True, text=True, timeout=10, check=False)
        if found := re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr):
            return found[0]
    return "unknown"
