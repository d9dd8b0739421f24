"""Breaks a copy of the core on purpose, one mistake at a time, and tells which machine or target notices, and when.

    python -m tests.fuzz.planted              every mistake
    python -m tests.fuzz.planted credit       those whose description has that word in it

The module that should notice is run as in ``make test``; with ``--all`` the others too, one after the other.
``tests/fuzz/test_planted.py`` sees to it that the texts of the mistakes are still in the core.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.broken import break_core

__all__ = ["MISTAKES", "Mistake", "main"]

ROOT = Path(__file__).parents[2]


class Mistake(NamedTuple):
    """In that module this text stands once, and becomes that; ``by`` should notice first."""

    what: str
    module: str
    old: str
    new: str
    by: str

    @property
    def edit(self) -> tuple[str, str, str]:
        """Where it is made, and how."""
        return self.module, self.old, self.new


MISTAKES = (
    Mistake("a length of 0 is accepted", "frames", "    if length < 2:\n        raise",
            "    if length < 2:\n        return\n        raise", "test_decoder"),
    Mistake("a frame of the limit is refused", "frames", "if length > limit:", "if length >= limit:", "test_decoder"),
    Mistake("a body one byte too long", "frames", "length - 2 <= most", "length - 3 <= most", "test_decoder"),
    Mistake("the rest of a chunk is lost", "frames", "                self._partial += self.buffer[self.position :]\n",
            "                self._partial += self.buffer[self.position + 1 :]\n", "test_decoder"),
    Mistake("a closed decoder keeps a partial frame", "frames",
            'self._needed, self.lent = b"", 0, 0, False\n        self._partial = bytearray()\n',
            'self._needed, self.lent = b"", 0, 0, False\n', "test_decoder"),
    Mistake("a key twice in a map", "maps", "if len(found) != len(pairs):", "if False:", "test_targets"),
    Mistake("a map one level too deep", "maps", "MAX_MAP_DEPTH = 4", "MAX_MAP_DEPTH = 5", "test_targets"),
    Mistake("HELLO for somebody else", "negotiation", "hello.to != endpoint.peer_id:", "hello.to == hello.peer_id:",
            "test_handshake"),
    Mistake("the handshake may take for ever", "negotiation", "        if now >= self._deadline:\n            state",
            "        if now >= self._deadline + 99:\n            state", "test_handshake"),
    Mistake("a message is begun at the credit", "outbox", "and (self.used < self.credit or self.fragment)",
            "and (self.used <= self.credit or self.fragment)", "test_credit"),
    Mistake("frames are joined beyond the credit", "outbox", "or size >= max_bytes or used >= credit:",
            "or size >= max_bytes or used > credit:", "test_credit"),
    Mistake("what is begun at the credit is admitted", "inbox", "if self.used >= self.allowed:",
            "if self.used > self.allowed:", "test_credit"),
    Mistake("a released rejection holds credit for ever", "inbox",
            "            self.unsettled -= self.rejects.pop(sequence).cost\n",
            "            self.rejects.pop(sequence)\n", "test_credit"),
    Mistake("closes twice", "connection",
            "        self.state = ConnectionState.CLOSED\n        self._endpoint.timers.cancel(self)\n",
            "        self._endpoint.timers.cancel(self)\n", "test_targets"),
    Mistake("a part of a message outlives its connection", "connection", "        self._assembly.clear()\n", "",
            "test_targets"),
    Mistake("fragments may be longer than the total", "assembly", "if self.missing < 0:", "if False:",
            "test_connection"),
    Mistake("a fragment without content", "assembly", "if flags & ~_NEXT_FLAGS or size < 1:",
            "if flags & ~_NEXT_FLAGS:", "test_connection"),
    Mistake("DATA after FIN", "inbox", "        if self.fin:\n            raise",
            "        if False:\n            raise", "test_connection"),
    Mistake("a flood is borne", "connection", "if self._tokens < 0:", "if self._tokens < -1000:", "test_connection"),
    Mistake("a dead process's messages are not flagged", "outbox", "if sequence <= self.marked:",
            "if sequence < self.marked:", "test_resume"),
    Mistake("a durable inbox that is not echoed marks nothing", "attachment",
            "if other and not (outbox.receiver_durable and echoed):", "if other and not outbox.receiver_durable:",
            "test_resume"),
    Mistake("resumes from read, not received", "attachment", "outbox.resume(inbox.received)",
            "outbox.resume(inbox.read)", "test_resume"),
    Mistake("the hole is one too short", "attachment", "outbox.first - 1)\n        outbox.attach",
            "outbox.first - 2)\n        outbox.attach", "test_resume"),
    Mistake("an ended session settles too much", "attachment", "outbox.acknowledge(ended.read, ended.read)",
            "outbox.acknowledge(ended.received, ended.received)", "test_resume"),
    Mistake("a process that answers is replaced", "arbiter", "return Decision.PARK", "return Decision.TAKE",
            "test_arbiter"),
    Mistake("an old dial that comes late is taken", "arbiter", "return newcomer.dial <= last.dial",
            "return newcomer.dial < last.dial", "test_arbiter"),
    Mistake("an old generation is taken", "arbiter", "return newcomer.generation <= self.seen",
            "return newcomer.generation < self.seen", "test_arbiter"),
    Mistake("what was superseded lives on", "endpoint", 'incumbent.close(CloseCode.SUPERSEDED, "", now)', "pass",
            "test_arbiter"),
    Mistake("parked newcomers stay", "endpoint", "        for rival in parked:\n            rival.close",
            "        for rival in parked[1:]:\n            rival.close", "test_arbiter"),
    Mistake("a lost connection keeps its part of the budget", "session",
            "        self.window.release(self.unsettled)\n        self.notices", "        self.notices", "test_pair"),
    Mistake("expired messages end without a word", "outbox",
            "        self.newly_failed = True\n        if self.on_outcome is not None:\n",
            "        self.newly_failed = True\n        if self.on_outcome is not None and failure.seen != 'no':\n",
            "test_pair"),
    Mistake("a batch that failed keeps its messages", "journal", "            journal.unaccept(error)\n",
            "            pass\n", "test_journal"),
    Mistake("sends before it is on disk", "outbox", "            and self.cursor <= self.sendable\n", "",
            "test_journal"),
    Mistake("eight bytes of a mac are enough", "psk", "hmac.compare_digest(_mac(key or _DECOY, proof), mac or b\"\")",
            "hmac.compare_digest(_mac(key or _DECOY, proof)[:8], (mac or b\"\")[:8])", "test_targets"),
    Mistake("no mac is a good mac", "psk", "return same and key is not None", "return mac is None or same",
            "test_targets"),
    Mistake("the key of nobody opens", "psk", "return same and key is not None", "return same", "test_targets"),
    Mistake("a proof that is good on every channel", "psk", "proof.binding if proof.binding else",
            "b\"\" if False else", "test_targets"),
    Mistake("a proof that does not cover HELLO_ACK", "psk", "_lp(proof.transcript) +",
            "_lp(proof.transcript[: len(proof.transcript) // 2]) +", "test_targets"),
    Mistake("a proof that does not cover the facts", "negotiation", "            attach=attach,\n",
            "            attach=b\"\",\n", "test_targets"),
    Mistake("a newcomer is taken before its proof is judged", "negotiation",
            "        if not self._verified(proof, attach.mac, now):\n",
            "        if False:\n", "test_targets"),
    Mistake("a refusal that tells why", "negotiation",
            "raise PeerFault(CloseCode.AUTH_FAILED, \"\", private=self._doubt())",
            "raise PeerFault(CloseCode.AUTH_FAILED, self._doubt())", "test_targets"),
)  # fmt: skip


def main() -> int:
    """The command line; the number of mistakes that nobody noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.planted", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("word", nargs="?", default="", help="only mistakes whose description has it")
    parser.add_argument("--all", action="store_true", help="run every module")
    arguments = parser.parse_args()
    missed = 0
    for mistake in MISTAKES:
        if arguments.word in mistake.what:
            missed += not _plant(mistake, all_modules=arguments.all)
    return missed


def _plant(mistake: Mistake, *, all_modules: bool) -> bool:
    modules = sorted((path.stem for path in Path(__file__).parent.glob("test_*.py") if path.stem != "test_planted"),
                     key=lambda stem: stem != mistake.by)  # fmt: skip
    modules = modules if all_modules else modules[:1]
    noticed = False
    with tempfile.TemporaryDirectory() as directory:
        break_core(Path(directory), [mistake.edit])
        for module in modules:
            began = time.perf_counter()
            found = _run(module, directory)
            if found:
                print(f"{mistake.what:50} {found:40} {time.perf_counter() - began:6.1f} s", flush=True)
                noticed = True
    if not noticed:
        print(f"{mistake.what:50} nobody noticed", flush=True)
    return noticed


def _run(module: str, directory: str) -> str:
    """The test of that module that fails first; "" if none does."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", "-W", "error",
               "--rootdir", directory, f"tests/fuzz/{module}.py"]  # fmt: skip
    environment = {**os.environ, "HYPOTHESIS_PROFILE": "quick", "PYTHONPATH": directory}
    run = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    failed = [line for line in run.stdout.splitlines() if line.startswith("FAILED")]
    return failed[0].split("::", 1)[1].split(" - ")[0] if failed else ""


if __name__ == "__main__":
    sys.exit(main())
