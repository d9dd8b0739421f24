"""Runs the targets under a coverage-guided fuzzer: ``make fuzz``, or

    python -m tests.fuzz.run [--seconds N] [TARGET...]    fuzz the targets (default: all), N seconds in all
    python -m tests.fuzz.run TARGET FILE                  run one input again

Each target runs in a process of its own, one after the other, from the committed corpus and from what earlier runs
found worth keeping (``.fuzz/``, which is not committed).  The first finding ends the run: its input is kept, and the
command that repeats it is printed.  A finding is any exception, more than 10 s for one input, or more than 1 GiB.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["main"]

NAMES = ("frames", "maps", "payload", "objects", "acceptor", "dialer", "stream", "live", "psk")

#: where a run keeps what it learned and what it found
WORK = Path(".fuzz")

#: longest input by target; what is longer takes long and says little
_LENGTHS = {"frames": 4096, "maps": 512, "payload": 2048, "objects": 512, "live": 512, "psk": 320}

_STATUS = re.compile(rb"#(\d+)\s+\w+\s+(?:cov: (\d+) )?(?:ft: (\d+) )?(?:corp: (\d+))?")


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description="Fuzz the core.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=float, default=300, help="for all targets together (default: 300)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names: list[str] = arguments.targets
    if len(names) == 2 and names[1] not in NAMES:
        _repeat(*names)
        return 0
    if unknown := set(names) - set(NAMES):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if arguments.child:
        _fuzz(names[0], arguments.seconds)
        return 0
    names = names or list(NAMES)
    print("target     executions  a second  branches  features  corpus  seconds")
    return next((1 for name in names if not _watch(name, arguments.seconds / len(names))), 0)


def _repeat(name: str, file: str) -> None:
    """Run one input, without a fuzzer."""
    from tests.fuzz.targets import TARGETS

    TARGETS[name](Path(file).read_bytes())
    print(f"{name}: nothing wrong with {file}")


def _watch(name: str, seconds: float) -> bool:
    """Fuzz one target in a process of its own; tell what came of it.  False: something was found."""
    (WORK / "corpus" / name).mkdir(parents=True, exist_ok=True)
    (WORK / "log").mkdir(exist_ok=True)
    log = WORK / "log" / name
    began = time.monotonic()
    with log.open("wb") as out:
        command = [sys.executable, "-m", "tests.fuzz.run", "--child", "--seconds", str(seconds), name]
        status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    took = time.monotonic() - began
    said = log.read_bytes()
    status_lines = _STATUS.findall(said) or [(0, 0, 0, 0)]
    executions, branches, features, corpus = (int(number or 0) for number in status_lines[-1])
    print(
        f"{name:9} {executions:11,} {executions / took:9,.0f} {branches:9,} {features:9,} {corpus:7,} {took:8.1f}",
        flush=True,
    )
    if status == 0:
        return True
    found = re.search(rb"Test unit written to (\S+)", said)
    sys.stdout.write(said.decode("utf-8", "replace")[-4000:])
    if found is not None:
        print(f"\nfound; repeat it with: {sys.executable} -m tests.fuzz.run {name} {found.group(1).decode()}")
    return False


def _fuzz(name: str, seconds: float) -> None:
    """The fuzzer itself; it ends the process."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["networkio_proto"]):
        from tests.fuzz.targets import CORPUS, TARGETS
    atheris.Setup(
        [
            sys.argv[0],
            str(WORK / "corpus" / name),
            str(CORPUS / name),
            f"-max_total_time={max(1, round(seconds))}",
            f"-max_len={_LENGTHS.get(name, 1500)}",
            f"-artifact_prefix={WORK}/found-{name}-",
            "-timeout=10",
            "-rss_limit_mb=1024",
            "-print_final_stats=1",
            "-verbosity=1",
        ],
        TARGETS[name],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
