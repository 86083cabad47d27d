"""The catalog over both databases, for every test that must hold for each of them; and what talks
to a registry.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from services.converter.registry.transport import open_session
from shared.catalog.interface import Catalog
from shared.deadline import Deadline
from shared.events import new_id
from tests.support.catalogs import opened
from tests.support.mongo import Mongod, running_mongod


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """One server for all tests that leave it running; each uses a database of its own."""
    with running_mongod(tmp_path_factory.mktemp("mongod")) as server:
        yield server


@pytest.fixture(params=["sqlite", "mongodb"])
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/state/catalog.db"
    server: Mongod = request.getfixturevalue("mongod")
    return server.url(f"test_{new_id()}")


@pytest.fixture
async def catalog(catalog_url: str) -> AsyncIterator[Catalog]:
    async with opened(catalog_url) as catalog:
        yield catalog


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as session:
        yield session


@pytest.fixture
def deadline() -> Deadline:
    return Deadline.after(30)
