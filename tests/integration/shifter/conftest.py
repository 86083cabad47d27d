"""A site whose gateway is spoken to as Shifter's C client does."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.munged import Munged
from tests.support.registry import DebianRegistry
from tests.support.shifter_wire import IMPORTER, PASSWORD, USER, Wire
from tests.support.site import Site


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def wire(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wire]:
    directory = tmp_path_factory.mktemp("wire")
    with (
        Munged() as munged,
        DebianRegistry(directory / "registry") as registry,
        DebianRegistry(directory / "locked", login=(USER, PASSWORD)) as locked,
    ):
        settings = {
            "gateway": {"munge_socket": str(munged.socket)},
            "usage": {"flush_interval": 0.2},
            "imports": {"allow": [str(IMPORTER)]},
        }
        async with Site(directory / "site", settings) as site:
            await site.up()
            yield Wire(site, munged, registry, locked)
