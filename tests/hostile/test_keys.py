"""Attacks on who is who, with pre-shared keys: what nobody gets who has not the key of the one that it says it is.

The numbers are those of the threat model.  Each attack is made on the core, in memory, in both roles: against a node
that is dialled, and against one that dials.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from networkio_proto import PSK, CloseCode, Config, ConfigurationError, Proof, TLSFacts, psk
from tests.hostile.holder import Holder, key
from tests.proto.helpers import Frame, frames
from tests.proto.helpers_wire import (
    ATTACH,
    CLOSE,
    DATA,
    HELLO,
    HELLO_ACK,
    PREAMBLE,
    Line,
    Node,
    data,
    dialled,
    exchange,
    fingerprint,
    frame,
    mapping,
)

OF_A, OF_Z, WRONG = key("a"), key("z"), key("wrong")

#: how a stranger meets the node "m"
ROLES = ["dials", "answers"]


def node(**settings: Any) -> Node:
    """The one that is attacked; it arbitrates with "a", and "z" with it."""
    return Node("m", auth=PSK({"a": {"k1": OF_A}, "z": {"k1": OF_Z}}), **settings)


def meet(victim: Node, stranger: Holder, role: str, **facts: Any) -> Line:
    return stranger.dial(victim, **facts) if role == "dials" else stranger.answer(victim, **facts)


def with_history(victim: Node, peer_id: str, secret: bytes) -> Holder:
    """A session in full swing, and a message in each direction that is not settled; its connection is lost then."""
    honest = Holder(peer_id, secret)
    line = honest.dial(victim)
    assert line.live, line.connection.error
    victim.send(peer_id, b"one", b"two")
    line.say(data(1, b"mail"))
    line.lose()
    return honest


def digest(victim: Node) -> str:
    """The state of all sessions of a node."""
    return hashlib.sha256(repr(fingerprint(victim.endpoint)).encode()).hexdigest()


def refused(line: Line) -> bytes:
    """It was, as somebody who proved nothing; what was said at the end."""
    said = line.raw()
    last = frames(said)[-1]
    assert last.kind == CLOSE
    assert int.from_bytes(last.body[:2], "big") == CloseCode.AUTH_FAILED
    assert not line.live
    return bytes(last.body)


def again(each: Frame) -> bytes:
    """A frame as it was said."""
    return frame(each.kind, each.body, each.flags)


def end_dials(victim: Node) -> None:
    """It dials no more."""
    for target in list(victim.endpoint.targets):
        victim.endpoint.remove_target(target)
    victim.dials.clear()
    victim.pump()
    victim.dials.clear()


# -- somebody else's name ---------------------------------------------------------------------------------------------


def test_the_honest_get_in() -> None:
    for role in ROLES:
        for name, secret in (("a", OF_A), ("z", OF_Z)):
            assert meet(node(), Holder(name, secret), role).live, (role, name)


@pytest.mark.parametrize("peer_id", ["a", "z"])
def test_a_hello_in_somebodys_name_disturbs_nobody(peer_id: str) -> None:
    """Attack 12."""
    victim = node()
    honest = Holder(peer_id, OF_A if peer_id == "a" else OF_Z)
    live = honest.dial(victim)
    before = digest(victim)
    line, _ = Holder(peer_id, WRONG, life=2).introduce(victim)
    assert victim.endpoint.handshakes == 1
    assert digest(victim) == before
    victim.advance(victim.endpoint.config.handshake_timeout)
    assert line.connection.error is not None
    assert line.connection.error.code is CloseCode.TIMEOUT
    assert victim.endpoint.handshakes == 0
    assert digest(victim) == before
    assert live.live


@pytest.mark.slow
def test_ten_thousand_takeovers_leave_the_state_as_it_was() -> None:
    """Attacks 12 and 13, with everything that an eavesdropper knows: ids, key id, incarnation, outbox, positions."""
    victim = node()
    honest = with_history(victim, "a", OF_A)
    live = honest.dial(victim, first=1, next=2)
    assert live.live
    live.raw()
    before = digest(victim)
    thief = Holder("a", WRONG)
    thief.incarnation, thief.outbox, thief.run, thief.dials = honest.incarnation, honest.outbox, honest.run, 1000
    for attempt in range(10_000):
        line = thief.dial(victim, first=1, next=1 + attempt)
        refused(line)
        line.lose()
        victim.lines.pop(line.connection)
        victim.logs.clear()
        if attempt % 1000 == 0:
            assert digest(victim) == before
    assert digest(victim) == before
    assert live.live
    assert live.raw() == b""
    assert victim.endpoint.handshakes == 0
    assert len(victim.endpoint.connections) == 1


@pytest.mark.parametrize("role", ROLES)
def test_stolen_ids_and_positions_are_worth_nothing_without_the_key(role: str) -> None:
    """Attack 13: what is answered does not even tell whether they are right."""
    said = []
    for stolen in (True, False):
        victim = node()
        honest = with_history(victim, "a", OF_A)
        before = digest(victim)
        thief = Holder("a", WRONG, life=1 if stolen else 9)
        session = victim.session("a")
        ids = (session.outbox.outbox_id, session.outbox.run) if stolen else (b"?" * 16, b"!" * 16)
        inbox = {"outbox": ids[0], "run": ids[1], "received": 2, "read": 2, "first": 1}
        assert (thief.outbox == honest.outbox) is stolen
        line = meet(victim, thief, role, inbox=inbox)
        said.append(refused(line))
        end_dials(victim)
        assert digest(victim) == before
    assert said[0] == said[1]


@pytest.mark.parametrize("role", ROLES)
def test_a_key_proves_its_own_name_only(role: str) -> None:
    """Attack 14: "z" has a good key, and says it is "a"."""
    victim = node()
    with_history(victim, "a", OF_A)
    before = digest(victim)
    refused(meet(victim, Holder("a", OF_Z), role))
    end_dials(victim)
    assert digest(victim) == before


@pytest.mark.parametrize("role", ROLES)
def test_naming_the_outboxes_of_another_touches_and_reveals_nothing_of_it(role: str) -> None:
    """Attack 14: "z" proves to be "z", and names what belongs to "a"."""
    victim = node()
    honest = with_history(victim, "a", OF_A)
    before = fingerprint(victim.endpoint)["a"]
    session = victim.session("a")
    thief = Holder("z", OF_Z)
    thief.outbox, thief.run = honest.outbox, honest.run
    facts = {"outbox": session.outbox.outbox_id, "run": session.outbox.run, "received": 2, "read": 2, "first": 1}
    line = meet(victim, thief, role, inbox=facts)
    line.say(data(1, b"in the name of a"))
    heard = line.raw()
    assert fingerprint(victim.endpoint)["a"] == before
    assert b"one" not in heard
    assert session.outbox.outbox_id not in heard
    assert victim.read("a") == [b"mail"]


# -- what was recorded ------------------------------------------------------------------------------------------------


def conversation(change: Callable[[int, bytes], bytes] | None = None) -> tuple[Line, Line, list[list[bytes]]]:
    """Two honest nodes, "a" dials "m", and they talk: both ends, and everything that each said."""
    one, other = Node("a", auth=PSK({"m": {"k1": OF_A}})), node()
    said: list[list[bytes]] = [[], []]

    def note(end: int, stretch: bytes) -> bytes:
        said[end].append(stretch)
        return stretch if change is None else change(end, stretch)

    there, here = dialled(one, other)
    exchange(there, here, note)
    one.send("m", b"pay 100")
    exchange(there, here, note)
    return there, here, said


def recorded() -> tuple[Node, Node, list[list[bytes]]]:
    """The nodes of such a conversation when it is over, and what was said."""
    there, here, said = conversation()
    assert there.live
    assert here.node.read("a") == [b"pay 100"]
    for line in (there, here):
        line.lose()
    return there.node, here.node, said


def test_a_recorded_dialer_is_not_believed_again() -> None:
    """Attacks 15 and 16: the handshake, and the message behind it, said once more by somebody else."""
    _, victim, said = recorded()
    before = digest(victim)
    line = victim.accept(source="elsewhere")
    line.say(*said[0])
    refused(line)
    assert digest(victim) == before
    assert victim.read("a") == []


def test_a_recorded_acceptor_is_not_believed_again() -> None:
    """Attacks 15 and 16, in the other role."""
    victim, _, said = recorded()
    end_dials(victim)
    before = digest(victim)
    line = victim.dial("m")
    line.raw()
    line.say(*said[1])
    refused(line)
    end_dials(victim)
    assert digest(victim) == before


def test_messages_of_another_connection_mean_nothing_before_a_proof() -> None:
    """Attack 16: the recorded DATA frame alone, at each step of a new handshake."""
    _, victim, said = recorded()
    message = next(again(each) for each in frames(b"".join(said[0])) if each.kind == DATA)
    before = digest(victim)
    for step in range(2):
        line = victim.accept()
        line.say(PREAMBLE, Holder("a", OF_A).hello(to="m", key_id="k1") if step else b"", message)
        assert not line.live
        assert line.connection.error is not None
        assert line.connection.error.code is CloseCode.PROTOCOL
    assert digest(victim) == before


@pytest.mark.parametrize("dialer", ["a", "z"])
def test_a_dialers_own_proof_sent_back_to_it_proves_nothing(dialer: str) -> None:
    """Attack 17: both ids are the arbiter's and the follower's in turn."""
    victim = Node(dialer, auth=PSK({"m": {"k1": OF_A}}))
    line = victim.dial("m")
    line.raw()
    line.say(PREAMBLE + Holder("m", WRONG).hello_ack())
    own = line.raw()
    assert [each.kind for each in frames(own)] == [ATTACH]
    line.say(own)
    refused(line)


def test_what_one_node_proves_is_no_proof_to_itself_over_a_second_connection() -> None:
    """Attack 17: a node that dials is given its own proof back where it accepts."""
    victim = node()
    out = victim.dial("a")
    hello = frames(out.raw().removeprefix(PREAMBLE))[0]
    back = victim.accept()
    fields = msgpack.unpackb(hello.body)
    back.say(PREAMBLE, frame(HELLO, mapping({**fields, "id": "a", "to": "m"})))
    heard = frames(back.raw().removeprefix(PREAMBLE))
    answer = msgpack.unpackb(heard[0].body)
    out.say(PREAMBLE, frame(HELLO_ACK, mapping({**answer, "id": "a"})))
    back.say(out.raw())
    refused(back)


# -- changed on the way -----------------------------------------------------------------------------------------------


def rewritten(end: int, kind: int, **changes: Any) -> Callable[[int, bytes], bytes]:
    """Somebody on the way who rewrites the fields of a frame, and leaves it well-formed."""

    def change(side: int, stretch: bytes) -> bytes:
        head = PREAMBLE if stretch.startswith(PREAMBLE) else b""
        found = frames(stretch.removeprefix(PREAMBLE))
        if side != end or not found or found[0].kind != kind:
            return stretch
        fields = msgpack.unpackb(found[0].body)
        assert set(changes) <= set(fields)
        rest = b"".join(map(again, found[1:]))
        return head + frame(kind, mapping({**fields, **changes})) + rest

    return change


LOWER = {"frame": 8192, "message": 1, "idle": 1000}


@pytest.mark.parametrize(
    ("end", "kind", "changes"),
    [
        (0, HELLO, {"v": [1, 2]}), (0, HELLO, {"v": [0, 1]}), (0, HELLO, {"features": ["x"]}),
        (0, HELLO, {"limits": LOWER}), (0, HELLO, {"nonce": bytes(32)}), (0, HELLO, {"agent": "older"}),
        (0, HELLO, {"dial": 99}), (0, HELLO, {"incarnation": bytes(16)}), (0, HELLO, {"key_id": None}),
        (1, HELLO_ACK, {"limits": LOWER}), (1, HELLO_ACK, {"nonce": bytes(32)}),
        (1, HELLO_ACK, {"incarnation": b"i" * 16}), (0, ATTACH, {"credit": 1}), (0, ATTACH, {"next": 7}),
        (1, ATTACH, {"credit": 1}), (1, ATTACH, {"first": 2, "next": 2}),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_was_changed_on_the_way_is_noticed_before_anything_comes_of_it(
    end: int, kind: int, changes: dict[str, Any]
) -> None:
    """Attack 19: versions, features, limits, and everything else that is agreed upon."""
    there, here, _ = conversation(rewritten(end, kind, **changes))
    deceived = there if (kind, end) == (ATTACH, 1) else here  # else the dialer proves first, of what it heard
    assert deceived.connection.error is not None
    assert deceived.connection.error.code is CloseCode.AUTH_FAILED
    assert not deceived.connection.error.remote
    assert not there.live
    assert not here.live
    assert here.node.endpoint.sessions.keys() <= ({"a"} if deceived is there else set())
    assert deceived.node.read(here.node.peer_id if deceived is there else "a") == []


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("what", ["ignorable frame", "first frame again", "a byte", "nothing of it"])
def test_nothing_can_be_put_in_or_taken_out_before_the_proof(end: int, what: str) -> None:
    """Attack 20: at every boundary before ATTACH, in both directions."""

    def change(side: int, stretch: bytes) -> bytes:
        if side != end or not stretch.startswith(PREAMBLE):
            return stretch
        inserted = {
            "ignorable frame": frame(0xC0, b"ignore me"),
            "first frame again": again(frames(stretch)[0]),
            "a byte": b"\0",
            "nothing of it": b"",
        }[what]
        return PREAMBLE if what == "nothing of it" else stretch + inserted

    there, here, _ = conversation(change)
    assert not there.live
    assert not here.live
    assert there.connection.attached is None
    if end == 0 or what == "nothing of it":  # else the dialer had proved itself before it found out
        assert here.node.endpoint.sessions == {}
    assert "a" not in here.node.endpoint.sessions or here.node.read("a") == []


@pytest.mark.parametrize(("seen", "live"), [(b"c" * 32, True), (b"d" * 32, False), (b"", False)])
def test_whoever_sits_between_with_a_certificate_of_its_own_is_noticed(seen: bytes, live: bool) -> None:
    """Attack 18: both sides must have seen the same certificate."""
    one, other = Node("a", auth=PSK({"m": {"k1": OF_A}})), node()
    there, here = dialled(one, other, (TLSFacts(seen), TLSFacts(b"c" * 32)))
    exchange(there, here)
    assert there.live is here.live is live


# -- guessing ---------------------------------------------------------------------------------------------------------


def test_one_connection_is_one_answer_to_a_hello() -> None:
    """Attack 11."""
    victim, stranger = node(), Holder("a", WRONG)
    line = victim.accept()
    line.say(PREAMBLE, *(stranger.hello(to="m", key_id="k1") for _ in range(50)))
    heard = [each.kind for each in frames(line.raw().removeprefix(PREAMBLE))]
    assert heard == [HELLO_ACK, CLOSE]
    assert line.connection.error is not None
    assert line.connection.error.code is CloseCode.PROTOCOL


def test_one_connection_is_one_proof_for_a_hello_ack() -> None:
    """Attack 11, in the other role."""
    victim, stranger = node(), Holder("a", WRONG)
    line = victim.dial("a")
    line.raw()
    line.say(PREAMBLE, *(stranger.hello_ack() for _ in range(50)))
    assert [each.kind for each in frames(line.raw())] == [ATTACH, CLOSE]


@pytest.mark.parametrize("role", ROLES)
def test_one_connection_is_one_guess(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 43."""
    victim = node()
    verify, verified = PSK.verify, list[bytes | None]()

    def counted(self: PSK, proof: Proof, mac: bytes | None, tls: TLSFacts | None) -> bool:
        verified.append(mac)
        return verify(self, proof, mac, tls)

    monkeypatch.setattr(PSK, "verify", counted)
    stranger = Holder("a", WRONG)
    line = meet(victim, stranger, role)
    line.say(*(stranger.attach("m", mac=bytes([guess]) * 32) for guess in range(50)))
    assert len(verified) == 1
    refused(line)


def test_a_source_has_few_guesses_at_a_time() -> None:
    """Attack 43: what one address may have under way is bounded."""
    victim = node(config=Config(max_pending_per_source=5))
    lines = [Holder("a", WRONG).introduce(victim)[0] for _ in range(20)]
    assert [line.connection.error is None for line in lines] == [True] * 5 + [False] * 15


@pytest.mark.parametrize("weak", [b"", b"secret", b"x" * 64, b"password" * 4, b"0123456789abcde"], ids=repr)
def test_what_could_be_guessed_is_no_key(weak: bytes) -> None:
    """Attack 43."""
    with pytest.raises(ConfigurationError) as caught:
        PSK({"a": weak})
    assert not weak or weak.decode() not in str(caught.value)


# -- what is learnt from a refusal ------------------------------------------------------------------------------------


def told(peer_id: str) -> dict[str, bytes]:
    """A callable that knows "a", and says that it does not know others with an error that says too much."""
    if peer_id == "a":
        return {"k1": OF_A}
    raise LookupError(f"the secret is {OF_A.hex()}")


CAUSES: dict[str, tuple[Any, bytes, str | None]] = {
    "wrong key": ({"a": {"k1": OF_A}}, WRONG, "k1"),
    "unknown peer": ({"z": {"k1": OF_A}}, OF_A, "k1"),
    "nobody is known": ({}, OF_A, "k1"),
    "unknown key id": ({"a": {"k2": OF_A}}, OF_A, "k1"),
    "no key id": ({"a": {"k1": OF_A}}, OF_A, None),
    "the callable raises": (lambda peer_id: told("z"), OF_A, "k1"),
    "the callable returns nonsense": (lambda peer_id: b"short", OF_A, "k1"),
}


def test_a_dialer_is_refused_with_the_same_bytes_at_the_same_point_whatever_is_wrong() -> None:
    """Attacks 42 and 51."""
    said = {}
    for cause, (keys, secret, key_id) in CAUSES.items():
        victim = Node("m", auth=PSK(keys))
        line, transcript = Holder("a", secret, key_id=key_id).introduce(victim)
        first = [each.kind for each in frames(transcript.removeprefix(PREAMBLE).partition(PREAMBLE)[2])]
        line.say(Holder("a", secret, key_id=key_id).proof("m", transcript))
        said[cause] = first, line.raw()
        assert refused_text(said[cause][1]) == b"", cause
        assert victim.endpoint.sessions == {}
    assert len({repr(each) for each in said.values()}) == 1, said


def refused_text(said: bytes) -> bytes:
    """The words of the CLOSE that is all that was said."""
    [last] = frames(said)
    assert last.kind == CLOSE
    return bytes(last.body[10:])


def test_an_acceptor_is_refused_with_the_same_bytes_whatever_is_wrong() -> None:
    """Attacks 42 and 51, in the other role: wrong key, no mac, the mac of the dialer, the mac of another connection."""
    said = set()
    for wrong in range(4):
        victim, stranger = node(), Holder("a", OF_A if wrong else WRONG)
        line = victim.dial("a")
        hello, mine = line.raw(), PREAMBLE + stranger.hello_ack()
        line.say(mine)
        own = line.raw()
        answer = {
            0: stranger.proof("m", hello + mine, dialer_mac=own[-32:]),
            1: stranger.attach("m", mac=None),
            2: stranger.attach("m", mac=own[-32:]),
            3: stranger.proof("m", hello + mine + b"!", dialer_mac=own[-32:]),
        }[wrong]
        line.say(answer)
        heard = line.raw()
        assert refused_text(heard) == b""
        said.add(heard)
    assert len(said) == 1


def test_every_refusal_costs_one_mac_and_one_comparison_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack 42: the same work for whoever is known and whoever is not."""
    work: list[str] = []

    class Counted:
        @staticmethod
        def digest(secret: bytes, message: bytes, kind: str) -> bytes:
            work.append(f"digest {len(secret)} {len(message)}")
            return hmac.digest(secret, message, kind)

        @staticmethod
        def compare_digest(one: bytes, other: bytes) -> bool:
            work.append(f"compare {len(one)} {len(other)}")
            return hmac.compare_digest(one, other)

    monkeypatch.setattr(psk, "hmac", Counted)
    done = {}
    for cause, (keys, secret, key_id) in CAUSES.items():
        work.clear()
        line = Holder("a", secret, key_id=key_id).dial(Node("m", auth=PSK(keys)))
        refused(line)
        done[cause] = [each for each in work if key_id is not None]
    del done["no key id"]  # its HELLO is shorter
    assert len({repr(each) for each in done.values()}) == 1, done
    assert done["wrong key"][-1] == "compare 32 32"


# -- keys that are no more --------------------------------------------------------------------------------------------


def recheck(victim: Node) -> None:
    victim.endpoint.recheck(victim.now)
    victim.pump()


@pytest.mark.parametrize("left", [{}, {"a": {"k2": WRONG}}, {"a": {"k1": WRONG}}, {"a": WRONG}], ids=["no key",
    "another id", "another key by that id", "a single key"])  # fmt: skip
@pytest.mark.parametrize("role", ROLES)
def test_a_former_peer_is_cut_and_does_not_come_back(role: str, left: dict[str, Any]) -> None:
    """Attack 44: also where the new key has the id of the old one."""
    keys = PSK({"a": {"k1": OF_A}})
    victim, former = Node("m", auth=keys), Holder("a", OF_A)
    line = meet(victim, former, role)
    assert line.live
    line.raw()
    keys.replace(left)
    assert line.live
    recheck(victim)
    refused(line)
    end_dials(victim)
    again = former.dial(victim)
    refused(again)


def test_a_former_peer_that_waits_for_the_place_of_a_live_one_is_cut_with_it() -> None:
    """Attack 44: a newcomer of another incarnation is parked with a proof that was good."""
    keys = PSK({"a": {"k1": OF_A}})
    victim = Node("m", auth=keys)
    live = Holder("a", OF_A).dial(victim)
    parked = Holder("a", OF_A, life=2).dial(victim)
    assert (live.live, parked.parked) == (True, True)
    keys.replace({"a": {"k2": WRONG}})
    recheck(victim)
    assert not victim.session("a").connected
    assert not parked.live
    assert not parked.parked
    assert not live.live


def test_a_handshake_is_judged_by_the_keys_at_its_end() -> None:
    """Attack 44: whoever began before the key was taken away is too late."""
    keys = PSK({"a": {"k1": OF_A}})
    victim, former = Node("m", auth=keys), Holder("a", OF_A)
    line, transcript = former.introduce(victim)
    keys.replace({"a": {"k2": WRONG}})
    recheck(victim)
    line.say(former.proof("m", transcript))
    refused(line)


def test_who_has_a_good_key_is_not_cut_with_others() -> None:
    """Attack 44."""
    keys = PSK({"a": {"k1": OF_A}, "z": {"k1": OF_Z}})
    victim = Node("m", auth=keys)
    lines = Holder("a", OF_A).dial(victim), Holder("z", OF_Z).dial(victim)
    keys.replace({"z": {"k2": WRONG, "k1": OF_Z}})
    recheck(victim)
    assert [line.live for line in lines] == [False, True]
