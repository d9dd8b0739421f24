"""Messages made of your own classes: an Enum and a dataclass, each registered under a number that both sides know.

Nothing is pickled: what goes over the wire is the number and the values, and only registered classes come out.  You see
an order arrive equal to what was sent, and what happens to an object that nobody registered.

    python examples/custom_types.py
"""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum

import anyio

from networkio_asyncio import EncodeError, MsgpackCodec, Node


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass(frozen=True)
class Order:
    article: str
    size: Size
    price: Decimal
    due: date
    gift: bool = False  # new fields go to the end and have a default


class Secret:
    pass


def codec() -> MsgpackCodec:
    """The same on both sides; a number stands for its class for ever."""
    made = MsgpackCodec()
    made.register(1, Size)
    made.register(2, Order)
    return made


async def main() -> None:
    async with Node("shop", codec=codec()) as shop, Node("customer", codec=codec()) as customer:
        listener = await shop.listen("127.0.0.1", 0)
        peer = await customer.connect("127.0.0.1", listener.port, "shop")
        order = Order("scarf", Size.LARGE, Decimal("19.90"), date(2030, 12, 24))
        await peer.send([order, order])
        first, _ = await shop.peer("customer").read()
        print("arrived:", first)
        print("equal:", first == order, "- an Enum's member is itself:", first.size is Size.LARGE)
        try:
            await peer.send({"orders": [order, Secret()]})
        except EncodeError as error:
            print("refused:", error)


if __name__ == "__main__":
    anyio.run(main)
