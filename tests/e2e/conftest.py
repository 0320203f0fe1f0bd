"""Servers for all end-to-end tests. A test may break them; they are mended after it."""

from collections.abc import Iterator

import pytest

from tests.support.deployment import Servers


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("servers"))
    try:
        yield servers
    finally:
        servers.stop()
