"""Two endpoints and no network: the whole contract of the core in a loop that hands bytes over by hand.

The clock is a number that only this program moves.  You see a message go each way, and what its sender learns of it.

    python examples/embed_memory.py
"""

from typing import Any

from networkio_proto import Close, Connection, Dial, Endpoint, MessagesRead, MessagesReady, Transmit

now = 0.0
ends: dict[Connection, Connection] = {}  # a byte stream: each end, and the other one


def carry(*endpoints: Endpoint) -> None:
    """Do what the endpoints want done, until they want nothing more."""
    while any(endpoint.effects for endpoint in endpoints):
        for endpoint in endpoints:
            while (effect := endpoint.next_effect()) is not None:
                match effect:
                    case Dial(target):
                        other: Any = target.key  # an address is whatever the driver dials by: here, the endpoint
                        near, far = endpoint.connect(effect, now), other.accept(now)
                        ends.update({near: far, far: near})
                    case Transmit(connection) | Close(connection):
                        while buffers := connection.data_to_send(now):
                            ends[connection].receive_data(b"".join(buffers), now)
                        if isinstance(effect, Close):
                            ends[connection].receive_eof(now)


def report(endpoint: Endpoint) -> None:
    """Take the notices, and read and acknowledge the messages."""
    while (notice := endpoint.next_event()) is not None:
        match notice:
            case MessagesReady(peer=peer):
                for delivery in endpoint.sessions[peer].take(10):
                    print(f"{endpoint.peer_id} reads {delivery[2].decode()!r}")
                    endpoint.sessions[peer].settle(delivery, now)
            case MessagesRead(peer=peer, through=sequence):
                print(f"{endpoint.peer_id} knows that {peer} has read everything up to message {sequence}")


if __name__ == "__main__":
    alice, bob = Endpoint("alice"), Endpoint("bob")
    alice.session("bob").send(b"Hello, Bob", now, raw=True)
    bob.session("alice").send(b"Hello, Alice", now, raw=True)
    alice.add_target(bob, now, to="bob")
    for _ in range(2):  # the messages cross, and then what is known of them
        carry(alice, bob)
        report(alice)
        report(bob)
    alice.close(now)
    carry(alice, bob)
    print(f"{len(alice.connections) + len(bob.connections)} connections are left")
