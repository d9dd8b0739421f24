"""Checks the model of the protocol with SPIN: `python -m tests.model.run`, or `make model`.

Each configuration is a choice of constants for docs/model/networkio.pml. `spin -a` writes a verifier in C, the compiler
makes a program of it, and that visits every state. What it prints is judged here, strictly: a search that was cut short
by depth, memory or time has proved nothing and counts as a failure, whatever it says about errors.

Each bug is the model with one rule broken (`#ifdef BUG_...`). Its configuration must then report an error; this is the
test of the test. A counterexample is printed as a list of events with `--show`.

The verifier is exhaustive: neither bit-state hashing nor hash compaction is used.
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

MODEL = Path(__file__).parents[2] / "docs" / "model" / "networkio.pml"

DEPTH = 100_000
MEMORY_MB = 12_000


@dataclass(frozen=True)
class Configuration:
    """One choice of constants. `cycles`: search for cycles as well, so that every run is known to end."""

    about: str
    constants: str
    quick: bool = False
    cycles: bool = False

    def defines(self) -> list[str]:
        return [f"-D{constant}" for constant in self.constants.split()]


CONFIGURATIONS = {
    "one-way": Configuration("messages one way, their sender dials, two cuts", "MSG0=3 MSG1=0 CUTS=2 DIALMAX=4",
                             quick=True, cycles=True),
    "both-ways": Configuration("messages both ways, one cut", "MSG0=2 MSG1=2 CUTS=1 DIALMAX=4 CONNS=2"),
    "restarts": Configuration("one cut, each side crashes once", "MSG0=2 MSG1=0 CUTS=1 CRASH0=1 CRASH1=1 DIALMAX=6"),
    "two-dialers": Configuration("both sides dial, messages both ways, one cut",
                                 "MSG0=1 MSG1=1 DIAL1=1 CUTS=1 DIALMAX=4"),
    "two-dials": Configuration("one side dials again while a dial is under way, one cut",
                               "MSG0=1 MSG1=1 EXTRA=1 CUTS=1 DIALMAX=8", quick=True, cycles=True),
    "takeover-follower": Configuration("both sides dial, the follower crashes",
                                       "MSG0=1 MSG1=0 DIAL1=1 CUTS=0 CRASH0=1 DIALMAX=6 ROOM=3 WINDOW=1"),
    "takeover-arbiter": Configuration("both sides dial, the arbiter crashes",
                                      "MSG0=1 MSG1=0 DIAL1=1 CUTS=0 CRASH1=1 DIALMAX=6 ROOM=3 WINDOW=1"),
}


@dataclass(frozen=True)
class Bug:
    """One broken rule, and the configuration that shows it, or one with more faults."""

    about: str
    rule: str
    configuration: str
    constants: str = ""
    quick: bool = False

    def defines(self, name: str) -> list[str]:
        constants = self.constants or CONFIGURATIONS[self.configuration].constants
        return [f"-DBUG_{name}", *(f"-D{constant}" for constant in constants.split())]


BUGS = {
    "LIVE_DIALER_ATTACHES": Bug("a live dialer sends ATTACH on its other dial", "P-HS-8", "two-dialers"),
    "TWO_CLAIMS": Bug("ATTACH is sent on a dial while another of one's own has sent it", "P-HS-11", "two-dials",
                       quick=True),
    "INCUMBENT_HEARD": Bug("the connection that was live before is not closed", "P-HS-9", "two-dialers"),
    "LAST_TAKEN_FORGOTTEN": Bug("the arbiter forgets the last connection taken when that ends", "P-ARB-10",
                                 "two-dialers"),
    "OTHERS_STAY": Bug("taking leaves connections of other incarnations alone", "P-ARB-13", "takeover-arbiter",
                       "MSG0=1 MSG1=0 DIAL1=1 CUTS=1 CRASH1=1 DIALMAX=9 ROOM=3"),
    "ARBITER_KEEPS_DIALS": Bug("the arbiter keeps its own dials when it takes another", "P-ARB-13", "two-dialers"),
    "GENERATION_IGNORED": Bug("the follower takes every newcomer", "P-ARB-16", "two-dialers"),
    "FOLLOWER_DROPS_DIALS": Bug("the follower closes its own claimed dial for another", "P-ARB-17", "two-dialers"),
    "INCARNATION_REUSED": Bug("a new process states the incarnation of the old one", "P-MODEL-3", "restarts"),
    "NO_REWIND": Bug("the cursor is not set back on resume", "P-OUT-1", "one-way", quick=True),
    "RESUME_FROM_READ": Bug("sending goes on after `read`, not after `received`", "P-RES-11", "restarts"),
    "READ_ON_RECEIPT": Bug("`read` is raised when the library has the message", "P-ACK-6", "two-dialers"),
    "CREDIT_CARRIED": Bug("credit of an earlier connection survives", "P-ATT-7", "restarts"),
    "MARK_FADES": Bug("a mark is gone after a resume with the same process", "P-MARK-3", "restarts"),
    "LOSS_MARKS": Bug("a lost connection marks what was sent", "P-MARK-4", "restarts"),
}


class CannotRun(Exception):
    """Spin or a C compiler is missing, or one of them failed."""


@dataclass
class Verdict:
    """What one run of a verifier showed: the first error, and in `complaints` why the search was not complete."""

    states: int = 0
    transitions: int = 0
    depth: int = 0
    errors: int = -1
    error: str = ""
    complaints: list[str] = field(default_factory=list)
    unreached: set[tuple[int, str]] = field(default_factory=set)
    seconds: float = 0.0
    megabytes: int = 0

    @property
    def proved(self) -> bool:
        return self.errors == 0 and not self.error and not self.complaints


# What a verifier prints when it has not visited everything.
CUT_SHORT = ("Search not completed", "max search depth too small", "out of memory", "memory bound", "Time limit",
             "hash factor", "Bit statespace", "Hash-Compact", "aborting")


def judge(output: str) -> Verdict:
    """Read what a verifier printed. Nothing is taken for granted: a figure that is missing is a complaint."""
    verdict = Verdict()
    error = re.search(r"^pan:\d+: (.+)$", output, re.MULTILINE)
    verdict.error = error.group(1) if error else ""
    figures = {"errors": r"errors: (\d+)", "depth": r"depth reached (\d+)", "states": r"(\d+) states, stored",
               "transitions": r"(\d+) transitions"}
    for name, pattern in figures.items():
        found = re.search(pattern, output)
        if found:
            setattr(verdict, name, int(found.group(1)))
        else:
            verdict.complaints.append(f"no figure for {name}")
    if "Full statespace search" not in output:
        verdict.complaints.append("not a full search")
    if not verdict.error:
        verdict.complaints += [f"cut short: {words}" for words in CUT_SHORT if words in output]
    for line, text in re.findall(r"^\s+\S+\.pml:(\d+), state \d+, \"(.*)\"$", output, re.MULTILINE):
        verdict.unreached.add((int(line), text))
    return verdict


def missing() -> str:
    """What is not installed that a run needs, as a sentence; empty if all is there."""
    if not shutil.which("spin"):
        return "SPIN is not installed. On Debian or Ubuntu: apt-get install spin. Else: https://spinroot.com"
    if not compiler():
        return "There is no C compiler (cc or gcc). On Debian or Ubuntu: apt-get install gcc"
    return ""


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc")


def command(words: list[str], directory: Path) -> str:
    done = subprocess.run(words, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    if done.returncode:
        raise CannotRun(f"{' '.join(words)} failed:\n{done.stdout[-2000:]}")
    return done.stdout


def build(directory: Path, defines: list[str], cycles: bool, optimise: str) -> None:
    """Write and compile the verifier into `directory`."""
    shutil.copy(MODEL, directory)
    command(["spin", "-a", *defines, MODEL.name], directory)
    cc = compiler()
    if cc is None:
        raise CannotRun(missing())
    kind = ["-DNP"] if cycles else ["-DSAFETY"]
    command([cc, optimise, "-w", *kind, "-DCOLLAPSE", "-DNOREDUCE", f"-DMEMLIM={MEMORY_MB}", "-o", "pan", "pan.c"],
            directory)


def verify(defines: list[str], *, cycles: bool = False, show: bool = False, optimise: str = "-O2") -> Verdict:
    """Visit every state of one choice of constants. Stops at the first error, and prints how it came if `show`.

    To optimise takes the compiler longer than the verifier gains by it where few states are visited.
    """
    with tempfile.TemporaryDirectory(prefix="networkio-model-") as name:
        directory = Path(name)
        build(directory, defines, cycles, optimise)
        words = ["./pan", f"-m{DEPTH}", "-w22", *(["-l"] if cycles else [])]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(words, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        verdict = judge(done.stdout)
        verdict.seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        memory = re.search(r"([\d.]+)\s+total actual memory usage", done.stdout)
        verdict.megabytes = round(float(memory.group(1))) if memory else 0
        if show and verdict.error:
            print(story(command(["./pan", "-r"], directory)))
            print(f"  broken: {verdict.error}")
        return verdict


# ---- a counterexample as text ----------------------------------------------------------------------------------------

NODES = ("follower", "arbiter")
AT_END = {0: "reads", 1: "notices that the other end has closed", 2: "closes by itself (a cut)"}
AT_NODE = {3: "crashes and starts again", 4: "dials", 5: "dials once more", 6: "transmits the next message",
           7: "writes an ACK", 8: "its application settles a message", 9: "probes: the incumbent is alive",
           10: "takes or refuses the parked newcomer: the incumbent is dead", 11: "nothing is possible any more"}
FRAMES = {1: ("HELLO", "incarnation dial"), 2: ("HELLO_ACK", "incarnation"),
          3: ("ATTACH", "outbox first inbox received read credit order"), 4: ("DATA", "sequence flag process"),
          5: ("ACK", "received read credit")}


def story(output: str) -> str:
    """The events of a replayed counterexample, one a line, each with the state after it."""
    lines = [f"  {'event':<66}  incarnation, live connection, first, cursor, received"]
    text = ""
    for kind, numbers in re.findall(r"@(event|frame|state) ([\d ]+)", output):
        values = [int(number) for number in numbers.split()]
        if kind == "event":
            if text:
                lines.append(f"  {text}")  # the step that the error cut short has no state
            event, place = values
            text = (f"{NODES[place % 2]}, connection {place // 2 + 1}: {AT_END[event]}" if event in AT_END
                    else f"{NODES[place]}: {AT_NODE[event]}")
        elif kind == "frame":
            name, fields = FRAMES[values[0]]
            told = (f"{field}={value}" for field, value in zip(fields.split(), values[1:], strict=False))
            text = f"{text} {name} {' '.join(told)}"
        else:
            lines.append(f"  {text:<66}  {values[:5]} {values[5:]}")
            text = ""
    if text:
        lines.append(f"  {text}")
    return "\n".join(lines)


# ---- the whole run ---------------------------------------------------------------------------------------------------

def line_of(name: str, verdict: Verdict, said: str) -> str:
    return (f"{name:<24} {said:<34} {verdict.states:>10,} states  depth {verdict.depth:>4}  "
            f"{verdict.seconds:>7.1f} s CPU  {verdict.megabytes:>6,} MB")


def check_configurations(names: list[str], show: bool) -> bool:
    good = True
    everywhere: set[tuple[int, str]] | None = None
    for name in names:
        configuration = CONFIGURATIONS[name]
        for cycles in (False, True) if configuration.cycles else (False,):
            verdict = verify(configuration.defines(), cycles=cycles, show=show)
            said = ("no cycle" if cycles else "no error") if verdict.proved else "FAILED"
            print(line_of(name, verdict, said), flush=True)
            for complaint in [*filter(None, [verdict.error]), *verdict.complaints]:
                print(f"    {complaint}")
            good = good and verdict.proved
            if not cycles:
                everywhere = verdict.unreached if everywhere is None else everywhere & verdict.unreached
    # SPIN does not look into a step, so this tells of the events, and not of what is within one.
    print("events that happened in none of these configurations:" if everywhere else "every event happened")
    for line, text in sorted(everywhere or ()):
        print(f"    {MODEL.name}:{line}: {text}")
    return good


def check_bugs(names: list[str], show: bool) -> bool:
    good = True
    for name in names:
        bug = BUGS[name]
        verdict = verify(bug.defines(name), show=show, optimise="-O0")
        print(line_of(name, verdict, f"found in {bug.configuration}" if verdict.error else "NOT FOUND"), flush=True)
        good = good and bool(verdict.error)
    return good


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model.run", description="Check the model of the protocol.")
    parser.add_argument("names", nargs="*", help="configurations and bugs; all of them, if none is named")
    parser.add_argument("--show", action="store_true", help="print the counterexample of each error")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in CONFIGURATIONS and name not in BUGS]
    if unknown:
        parser.error(f"no such configuration or bug: {', '.join(unknown)}; there are "
                     f"{', '.join([*CONFIGURATIONS, *BUGS])}")
    absent = missing()
    if absent:
        print(absent, file=sys.stderr)
        return 2
    configurations = [name for name in CONFIGURATIONS if not options.names or name in options.names]
    bugs = [name for name in BUGS if not options.names or name in options.names]
    try:
        good = not configurations or check_configurations(configurations, options.show)
        good = (not bugs or check_bugs(bugs, options.show)) and good
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
