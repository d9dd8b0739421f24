"""One authority for all tests."""

from __future__ import annotations

import pytest

from tests.tls.authority import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Nobody knows this one."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")
