"""The how-to for TLS, as typed: OpenSSL makes the certificates, two programs talk."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ENVIRONMENT, ROOT, blocks_of, free_port

PAGE = "howto/tls.md"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the program openssl is not installed")


def test_the_walk_through_works_as_typed(tmp_path: Path) -> None:
    page = ROOT / "docs" / PAGE
    (console,) = re.findall(r"^```console\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in console.splitlines():
        subprocess.run(shlex.split(line.removeprefix("$ ")), cwd=tmp_path, check=True, capture_output=True, timeout=20)
    server, client = [block for block in blocks_of(page) if block.test]
    port = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, "-c", block.code.replace("8080", port)],
            cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for block in (server, client)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=30)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], said
    assert said[0] == "only server-001 can read this\n"
    assert said[1].endswith("server-001 has read it\n")
