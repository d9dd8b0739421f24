"""Processes: fork after start, and the end of the interpreter whatever is still open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

BEGIN = """
import os, signal, sys, threading, time
from networkio_threads import *

config = Config(linger=0.2, drain_timeout=0.2)
there, here = Node("server", config=config).__enter__(), Node("client", config=config).__enter__()
near = here.connect("127.0.0.1", there.listen("127.0.0.1", 0).port, "server")
far = there.peer("client")
near.wait_connected(5)
receipt = near.send(0)
message = far.receive(5)
"""


def run(program: str) -> str:
    """What the program prints; it must end soon, and well."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BEGIN + program],
        capture_output=True, text=True, timeout=20, check=False, cwd=ROOT,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "fails, and is tried again" not in line]
    assert (done.returncode, complaints) == (0, [])
    return done.stdout


def test_a_forked_child_is_told_and_ends_and_disturbs_nobody() -> None:
    printed = run("""
child = os.fork()
if not child:
    calls = [near.send, message.ack, message.release, far.receive, far.read_nowait, receipt.read, near.why, here.drain,
             here.close, here.next_notice, near.drain, near.end, lambda data=0: receipt.outcome, near.failures]
    told = 0
    for call in calls:
        try:
            call(*([1] if call == near.send else []))
        except ForkedProcess as error:
            told += "in the child" in str(error)
    for other in (there, here):
        other.__exit__(None, None, None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    print("told", told, "of", len(calls), flush=True)
    with Node("server", config=config) as new:  # one of its own
        print(new.listen("127.0.0.1", 0).port > 0, flush=True)
    sys.exit(0)
assert os.waitpid(child, 0) == (child, 0)
message.ack()
receipt.read(5)
near.send(1)
assert far.read(5) == 1
assert near.session.connections == far.session.connections == 1
here.close(), there.close()
print("fine")
""")
    assert printed.split("\n") == ["told 14 of 14", "True", "fine", ""]


def test_forks_under_load_inherit_no_lock_and_hold_no_connection() -> None:
    printed = run("""
message.ack()
def talk(peer):
    while not over.is_set():
        peer.send(1, 5)
        peer.read_nowait(None)
over = threading.Event()
threads = [threading.Thread(target=talk, args=(peer,)) for peer in (near, far)]
for thread in threads:
    thread.start()
children = []
for _ in range(20):
    child = os.fork()
    if not child:
        names = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        sockets = [name for name in names if os.path.exists(name) and os.readlink(name).startswith("socket:")]
        try:
            near.send(0)
        except ForkedProcess:
            os._exit(len(sockets))
    children.append(child)
for child in children:
    assert os.waitpid(child, 0) == (child, 0)
over.set()
for thread in threads:
    thread.join()
here.close(0), there.close(0)
print("fine")
""")
    assert printed == "fine\n"


def test_the_interpreter_ends_with_open_nodes_unread_messages_and_threads_that_wait() -> None:
    printed = run("""
for number in range(100):
    near.send(number)
for call in (near.receive, here.next_notice, receipt.read, here.peer("stranger").wait_connected, near.drain,
             lambda: there.serve(lambda message: time.sleep(60)),
             lambda: here.connect_stream(lambda: time.sleep(60), "slow")):
    threading.Thread(target=call, daemon=True).start()
here.connect("localhost", 1, "nobody")
iterator = iter(near)
time.sleep(0.05)
print("fine")
""")
    assert printed == "fine\n"


def test_the_interpreter_ends_while_threads_send_and_receive() -> None:
    printed = run("""
message.ack()
def send():
    while True:
        near.send(bytes(1000))
def receive():
    while True:
        far.read()
for call in (send, receive, send, receive):
    threading.Thread(target=call, daemon=True).start()
time.sleep(0.1)
print("fine")
""")
    assert printed == "fine\n"
