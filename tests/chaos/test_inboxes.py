"""The short form of ``tests.chaos.inboxes`` (and of ``make crash``)."""

from __future__ import annotations

import os

import pytest

from tests.chaos.inboxes import ADAPTERS
from tests.chaos.test_crash import told

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")]


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_durable_inbox_gives_each_message_once_however_often_it_is_killed(adapter: str) -> None:
    killed, left = told("tests.chaos.inboxes", "--kills", "5", "--adapter", adapter)
    assert killed.startswith(f"{adapter}: 5 kills, ")
    assert killed.endswith(" 0 lost, 0 doubled, 0 reordered, 0 journals that did not open")
    assert left == f"{adapter}: 200 messages read after their sender's journal was deleted"
