"""Draws a cut and a resume as a sequence diagram, from a run that really happens: nothing in the drawing is typed in.

Two real cores talk in a simulated world (:class:`networkio_testing.World`).  A :class:`Recorder` watches the wire and
decodes the frames that pass; :func:`draw` makes SVG of what it saw, once for a light page and once for a dark one.  The
world's seed is fixed, so the drawing is the same each time.

    python docs/drawing_resume.py [DIRECTORY]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from networkio_proto import Delivery, Event, MessagesRead, PeerConnected, PeerDisconnected
from networkio_proto.frames import ACK, ATTACH, DATA, HELLO, HELLO_ACK, PREAMBLE, FrameDecoder, frame_name
from networkio_proto.handshake import parse_attach, parse_hello
from networkio_testing import Host, Wire, World
from networkio_testing.world import Watcher

__all__ = ["Recorder", "draw", "record", "write"]

CLIENT, SERVER = "client-123", "server-001"


# -- recording --------------------------------------------------------------------------------------------------------


@dataclass
class Frame:
    """One frame on its way."""

    sender: str
    kind: int
    label: str
    #: where it ends in its stream
    end: int
    arrived: bool = False


@dataclass
class Act:
    """What an application did or was told."""

    host: str
    text: str


@dataclass
class Break:
    """The wire was cut."""


@dataclass
class Recorder(Watcher):
    """Everything that happened, in order."""

    rows: list[Frame | Act | Break] = field(default_factory=list)
    _streams: dict[tuple[int, int], tuple[FrameDecoder, list[Frame]]] = field(default_factory=dict)

    def accepted(self, host: Host, peer: str, sequence: int, payload: bytes, options: object) -> None:
        self.rows.append(Act(host.name, f"sends {sequence}, “{payload.decode()}”"))

    def settled(self, host: Host, peer: str, delivery: Delivery, reject: object) -> None:
        self.rows.append(Act(host.name, f"reads {delivery[1]}, “{delivery[2].decode()}”"))

    def noticed(self, host: Host, notice: Event) -> None:
        match notice:
            case MessagesRead(through=through):
                self.rows.append(Act(host.name, f"is told: read up to {through}"))
            case PeerConnected():
                self.rows.append(Act(host.name, "is told: connected"))
            case PeerDisconnected():
                self.rows.append(Act(host.name, "is told: disconnected"))

    def wrote(self, wire: Wire, end: int, buffers: Sequence[bytes | memoryview]) -> None:
        if (wire.number, end) not in self._streams:
            self._streams[wire.number, end] = FrameDecoder(), []
        decoder, frames = self._streams[wire.number, end]
        decoder.feed(b"".join(buffers))
        written = frames[-1].end if frames else 0
        if not frames:
            assert decoder.take(len(PREAMBLE)) == PREAMBLE
            written = len(PREAMBLE)
        while (place := decoder.next_frame(1 << 20)) is not None:
            kind, _, start, stop = place
            written += 6 + stop - start
            frame = Frame(wire.hosts[end].name, kind, _label(kind, decoder.buffer[start:stop]), written)
            frames.append(frame)
            self.rows.append(frame)

    def arrived(self, wire: Wire, end: int) -> None:
        for frame in self.of(wire, 1 - end):
            frame.arrived = frame.end <= wire.pipes[1 - end].delivered

    def of(self, wire: Wire, end: int) -> list[Frame]:
        """The frames that one end has written so far."""
        return self._streams.get((wire.number, end), (None, []))[1]


def _label(kind: int, body: bytes) -> str:
    name = frame_name(kind)
    if kind == HELLO:
        hello = parse_hello(body)
        return f"{name}: {hello.peer_id} to {hello.to}"
    if kind == HELLO_ACK:
        return name
    if kind == ATTACH:
        facts = parse_attach(body)
        mine = f"I have {facts.first} to {facts.next - 1}" if facts.next > facts.first else "I have nothing for you"
        if facts.inbox is None:
            return f"{name}: {mine}, and got nothing"
        return f"{name}: {mine}; received {facts.inbox.received}, read {facts.inbox.read}"
    if kind == DATA:
        return f"{name} {int.from_bytes(body[:8], 'big')} “{body[8:].decode()}”"
    assert kind == ACK, name
    received, read = (int.from_bytes(body[place : place + 8], "big") for place in (0, 8))
    return f"{name}: received {received}, read {read}"


def record() -> Recorder:
    """Three messages, a cut in the middle, a fourth one meanwhile, and the resume."""
    world, recorder = World(seed=1), Recorder()
    world.watchers.append(recorder)
    client, server = world.host(CLIENT), world.host(SERVER)
    client.dial(SERVER)
    world.deliver_all()

    client.send(SERVER, b"one")
    client.send(SERVER, b"two")
    client.send(SERVER, b"three")
    wire = world.live(CLIENT, SERVER)
    assert wire is not None
    *_, second, _third = recorder.of(wire, 0)
    wire.deliver(0, second.end - wire.pipes[0].delivered)
    server.read(CLIENT, 1)
    world.advance(0.03)  # the server's ACK is on its way, and so is the third message
    recorder.rows.append(Break())
    wire.cut()

    client.send(SERVER, b"four")
    world.run(1)
    server.read(CLIENT)
    world.run(1)
    assert client.session(SERVER).ledger.read == 4
    return recorder


# -- drawing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Palette:
    text: str
    line: str
    handshake: str
    data: str
    ack: str
    lost: str


LIGHT = Palette("#1f2328", "#8c959f", "#6e5494", "#0550ae", "#116329", "#b3261e")
DARK = Palette("#e6edf3", "#6e7681", "#c9a6f5", "#79b8ff", "#56d364", "#ff8a80")

WIDTH, LEFT, RIGHT = 960, 230, 730
TOP, STEP = 64, 34
FONT = "font-family=\"-apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif\""


def draw(rows: Sequence[Frame | Act | Break], palette: Palette) -> str:
    """The rows as SVG, from top to bottom."""
    cuts = sum(isinstance(row, Break) for row in rows)
    height = TOP + STEP * (len(rows) + cuts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" {FONT} font-size="14">',
        "<title>A connection is cut, and the next one goes on where it broke off</title>",
        f"<desc>{escape('; '.join(_in_words(row) for row in rows))}</desc>",
    ]
    for x, name in ((LEFT, CLIENT), (RIGHT, SERVER)):
        parts.append(_text(x, 24, name, palette.text, "middle", bold=True))
        parts.append(_line(x, 36, x, height - 4, palette.line, width=1.5))
    below = float(TOP)
    for row in rows:
        height_of_row = STEP * (2 if isinstance(row, Break) else 1)
        y = below + height_of_row * 0.5
        below += height_of_row
        if isinstance(row, Act):
            left = row.host == CLIENT
            parts.append(f'<circle cx="{LEFT if left else RIGHT}" cy="{y - 4:g}" r="4" fill="{palette.text}"/>')
            x, anchor = (LEFT - 14, "end") if left else (RIGHT + 14, "start")
            parts.append(_text(x, y, row.text, palette.text, anchor))
        elif isinstance(row, Break):
            parts.append(_line(40, y - 4, LEFT + 110, y - 4, palette.lost, dashed=True))
            parts.append(_line(RIGHT - 110, y - 4, WIDTH - 40, y - 4, palette.lost, dashed=True))
            parts.append(_text((LEFT + RIGHT) / 2, y + 1, "the connection is cut", palette.lost, "middle", bold=True))
        else:
            parts += _arrow(row, y, palette)
    return "\n".join([*parts, "</svg>", ""])


def _arrow(frame: Frame, y: float, palette: Palette) -> list[str]:
    colour = {DATA: palette.data, ACK: palette.ack}.get(frame.kind, palette.handshake)
    start, stop = (LEFT, RIGHT) if frame.sender == CLIENT else (RIGHT, LEFT)
    onward = 1 if stop > start else -1
    if not frame.arrived:
        colour, stop = palette.lost, stop - onward * 90
    y += 4
    parts = [
        _text((LEFT + RIGHT) / 2, y - 7, frame.label, colour, "middle"),
        _line(start + onward * 3, y, stop - onward * 8, y, colour, width=1.8, dashed=not frame.arrived),
    ]
    if frame.arrived:
        tip = stop - onward * 2
        parts.append(f'<path d="M{tip} {y:g} l{-onward * 10} -5 v10 z" fill="{colour}"/>')
    else:
        parts += [
            _line(stop - 5, y - 5, stop + 5, y + 5, colour, width=2.5),
            _line(stop - 5, y + 5, stop + 5, y - 5, colour, width=2.5),
        ]
    return parts


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float = 1, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="6 4"' if dashed else ""
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" stroke-width="{width:g}"{dashes}/>'
    )


def _text(x: float, y: float, text: str, colour: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def _in_words(row: Frame | Act | Break) -> str:
    if isinstance(row, Act):
        return f"{row.host} {row.text}"
    if isinstance(row, Break):
        return "the connection is cut"
    return f"{row.sender} {'says' if row.arrived else 'says in vain'} {row.label}"


def write(directory: Path) -> list[Path]:
    """Make the drawings; files that would not change are left alone.  Returns their places."""
    rows = record().rows
    directory.mkdir(exist_ok=True)
    made = []
    for name, palette in (("light", LIGHT), ("dark", DARK)):
        path, drawing = directory / f"resume-{name}.svg", draw(rows, palette)
        if not path.exists() or path.read_text(encoding="utf-8") != drawing:
            path.write_text(drawing, encoding="utf-8")
        made.append(path)
    return made


if __name__ == "__main__":
    for place in write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("_generated")):
        print(place)
